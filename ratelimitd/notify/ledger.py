"""Which notices were sent, durably: a restart or kill -9 sends nothing again, and forgets nothing that is to be sent.

`state_dir/notices.jsonl` has one JSON object per line:

    {"id": ID, "expiry": SECONDS, "to": [TARGET, ...], "notice": {...}}    is to be sent; without "to": was sent
    {"id": ID, "over": TARGET}                                             was sent to a target, or given up

A torn last line, of a daemon that was killed, is ignored; so are lines that are not ours, with one line in the log.
The file is rewritten at every start and every hour, without
the notices of windows that are over.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ratelimitd.state.directory import StateDir

NAME = "notices.jsonl"


@dataclass(slots=True)
class Unsent:
    """A notice that is still to be sent to some targets."""

    expiry: int
    notice: dict[str, Any]
    to: set[str] = field(default_factory=set)


class _Over(msgspec.Struct):
    """A line about a notice that was sent to a target, or given up."""

    id: str
    over: str


class _Notice(msgspec.Struct):
    """A line about a notice: which targets it is to be sent to, if it was not sent yet."""

    id: str
    expiry: int
    to: list[str] = []
    notice: dict[str, Any] = {}


def _decode(line: bytes) -> _Over | _Notice:
    """A line. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
    try:
        return msgspec.json.decode(line, type=_Over)
    except msgspec.ValidationError:
        return msgspec.json.decode(line, type=_Notice)


class Ledger:
    """The file. `unsent` is what is still to be sent, by id; `foreign` counts the lines that `load` did not understand.

    Its methods are for a thread, and raise StartError.
    """

    def __init__(self, state: StateDir) -> None:
        self.unsent: dict[str, Unsent] = {}
        self.foreign = 0
        self._state = state

    def load(self) -> dict[str, int]:
        """Read the file: the ids of all notices in it, and the ends of their windows."""
        ids: dict[str, int] = {}
        for record in self._records():
            if isinstance(record, _Over):
                self._over(record.id, record.over)
                continue
            ids[record.id] = record.expiry
            if record.to:
                self.unsent[record.id] = Unsent(record.expiry, record.notice, set(record.to))
        return ids

    def _records(self) -> Iterator[_Over | _Notice]:
        try:
            lines = (self._state.path / NAME).read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        torn = lines.pop()
        for line in filter(None, [*lines, torn]):
            try:
                yield _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.foreign += line is not torn

    def record(self, notices: Mapping[str, Unsent], over: Iterable[tuple[str, str]] = ()) -> None:
        """Record notices that are to be sent, and (id, target) of those that are over."""
        self.unsent |= {notice_id: entry for notice_id, entry in notices.items() if entry.to}
        lines = [_to_send(notice_id, entry) for notice_id, entry in notices.items()]
        for notice_id, target in over:
            self._over(notice_id, target)
            lines.append(json.dumps({"id": notice_id, "over": target}) + "\n")
        self._state.append(NAME, "".join(lines))

    def _over(self, notice_id: str, target: str) -> None:
        entry = self.unsent.get(notice_id)
        if entry is not None:
            entry.to.discard(target)
            if not entry.to:
                del self.unsent[notice_id]

    def compact(self, ids: Mapping[str, int]) -> None:
        """Rewrite the file: what is still to be sent, and the other notices' ids with the ends of their windows."""
        lines = [_to_send(notice_id, entry) for notice_id, entry in self.unsent.items()]
        lines += [
            json.dumps({"id": notice_id, "expiry": expiry}) + "\n"
            for notice_id, expiry in ids.items()
            if notice_id not in self.unsent
        ]
        self._state.replace(NAME, "".join(lines))


def _to_send(notice_id: str, entry: Unsent) -> str:
    record = {"id": notice_id, "expiry": entry.expiry, "to": sorted(entry.to), "notice": entry.notice}
    return json.dumps(record) + "\n"
