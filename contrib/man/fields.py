"""The types of what `ratelimitctl --json` prints, and what their fields say about themselves, for the man page."""

from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from ratelimitd.control.answers import Answer, Failure
from ratelimitd.ctl.answers import PRINTED


def arguments(kind: object) -> list[object]:
    """The types within a list, an Annotated or a union."""
    found: list[object] = []
    for argument in getattr(kind, "__args__", ()):
        found += [argument, *arguments(argument)]
    return found


def is_struct(kind: object) -> bool:
    """Whether a type has fields of its own."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def answers() -> dict[type[Answer], list[str]]:
    """Every type that is printed, and the verbs that print it; none for a part of another."""
    found: dict[type[Answer], list[str]] = {}

    def add(kind: type[Answer], *verbs: str) -> None:
        found.setdefault(kind, []).extend(verbs)
        for each in msgspec.structs.fields(kind):
            for part in filter(is_struct, (each.type, *arguments(each.type))):
                add(part)

    for verb, kinds in PRINTED.items():
        for kind in kinds:
            add(kind, verb)
    return {**found, Failure: []}


def described(answer: type[Answer]) -> Iterator[tuple[str, str, str]]:
    """Name, type and description of each field that the base of an answer has not; "" where nothing is said."""
    inherited = answer.__base__.__struct_fields__
    for each in msgspec.structs.fields(answer):
        if each.name not in inherited:
            metas = [meta for meta in getattr(each.type, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
            yield each.encode_name, words(each.type), "".join(meta.description or "" for meta in metas)


def words(kind: Any) -> str:
    """A type of a field, in JSON's words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0])
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in inner)
    if origin in (list, dict):
        return f"{'list' if origin is list else 'object'} of {words(inner[-1])}"
    if inner:
        return " or ".join(map(words, inner))
    known = {str: "string", int: "integer", float: "number", bool: "true or false", NoneType: "null"}
    return known.get(kind) or str(kind.__name__)


def undescribed(kinds: Iterable[type[Answer]]) -> list[str]:
    """The fields of answers that nothing is said about."""
    return [f"{kind.__name__}.{name}" for kind in kinds for name, _, text in described(kind) if not text]
