"""Modules that libraries import when they are imported, and that most daemons never use: imported at their first use.

trio imports `ssl`, which brings OpenSSL; structlog imports `asyncio`. `defer` puts placeholders into `sys.modules`
before that. One becomes the module itself, the same object, once it is asked for a name that the module may have.
"""

import importlib
import linecache
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

NAMES = (
    *("asyncio", "ctypes", "ctypes.util", "difflib", "hashlib", "hmac", "idna", "importlib.metadata", "locale"),
    *("msgspec.inspect", "selectors", "shutil", "ssl", "structlog.stdlib", "subprocess", "tempfile"),
)

_lock = RLock()
_executing: set[str] = set()


class _Late(ModuleType):
    """A module that is not executed yet, or is being executed."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        # Who imports `a.b` asks `a` for its path, and `a` is executed first. Other such names everybody asks for.
        if name.startswith("__") and not (name == "__path__" and spec.submodule_search_locations):
            raise AttributeError(name)
        with _lock:  # other threads wait until all of it is there
            if spec.name in _executing:
                raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")
            if isinstance(self, _Late):
                _execute(self)
        return getattr(self, name)


def _execute(module: ModuleType) -> None:
    spec = module.__spec__
    assert spec is not None
    assert spec.loader is not None
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    _executing.add(spec.name)
    try:
        spec.loader.exec_module(module)
        module.__class__ = ModuleType
    finally:
        _executing.discard(spec.name)


def _found(name: str) -> ModuleSpec | None:
    """The spec of a module; nothing is imported for it."""
    spec, path = None, None
    for i, char in enumerate(f"{name}."):
        if char == ".":
            spec = PathFinder.find_spec(name[:i], path)
            path = spec.submodule_search_locations if spec is not None else []
    return spec


def defer() -> None:
    """Have the modules of NAMES imported at their first use, but those that are imported already or are not there."""
    for name in NAMES:
        spec = None if name in sys.modules else _found(name)
        if spec is None or spec.loader is None:
            continue
        module = sys.modules[name] = _Late(name)
        module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, spec.parent
        module.__file__ = spec.origin
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)


def readable() -> bool:
    """Whether this process, as whom it acts now, may read what is not imported yet."""
    return all(os.access(module.__file__ or "", os.R_OK, effective_ids=True) for module in _waiting())


def load_all() -> None:
    """Import now what is not imported yet. Raises what the modules raise."""
    for module in _waiting():
        with _lock:
            if isinstance(module, _Late):
                _execute(module)


def _waiting() -> list[ModuleType]:
    return [module for name in NAMES if isinstance(module := sys.modules.get(name), _Late)]


def import_trio() -> None:
    """Import trio without names for its threads: to find the library for these it runs ldconfig, or a compiler."""
    ctypes, util = sys.modules["ctypes"], sys.modules["ctypes.util"]
    if "trio" in sys.modules or not (isinstance(ctypes, _Late) and isinstance(util, _Late)):
        return
    with _lock:
        ctypes.__dict__["CDLL"] = util.__dict__["find_library"] = _finds_none
        importlib.import_module("trio")
        for module, name in ((ctypes, "CDLL"), (util, "find_library")):
            if isinstance(module, _Late):
                del module.__dict__[name]
    linecache.clearcache()  # where attrs keeps the source of every method that it makes


def _finds_none(name: str) -> None:
    if "." in name:
        raise OSError(name)


def import_msgspec() -> None:
    """Import msgspec without `typing_extensions`, which may be there: what it takes from it, `typing` has as well."""
    if "msgspec" not in sys.modules and "typing_extensions" not in sys.modules:
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # that is how Python says there is none
        try:
            importlib.import_module("msgspec")
        finally:
            del sys.modules["typing_extensions"]


defer()
import_trio()
import_msgspec()
