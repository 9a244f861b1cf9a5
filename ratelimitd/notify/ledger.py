"""What was told, durably: a restart or kill -9 tells nothing again, and forgets nothing that was to be told.

`state_dir/notices.jsonl` has one JSON object per line:

    {"id": ID, "expiry": SECONDS, "to": [TARGET, ...], "notice": {...}}    is to be told; without "to": was told
    {"id": ID, "over": TARGET}                                             told, or given up

A torn last line, of a daemon that was killed, is left out. The file is written anew at every start and every
hour, without the notices of windows that are over.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratelimitd.state.directory import StateDir

NAME = "notices.jsonl"


@dataclass(slots=True)
class Open:
    """A notice that is to be told to some targets still."""

    expiry: int
    notice: dict[str, Any]
    to: set[str] = field(default_factory=set)


class Ledger:
    """The file. `open` is what is to be told still, by id. Its methods are for a thread, and raise StartError."""

    def __init__(self, state: StateDir) -> None:
        self.open: dict[str, Open] = {}
        self._state = state

    def load(self) -> dict[str, int]:
        """Read the file: the ids of all notices in it, and the ends of their windows."""
        told: dict[str, int] = {}
        for record in _records(self._state.path / NAME):
            notice_id = record["id"]
            if "over" in record:
                self._over(notice_id, record["over"])
                continue
            told[notice_id] = int(record["expiry"])
            if record.get("to"):
                self.open[notice_id] = Open(int(record["expiry"]), record["notice"], set(record["to"]))
        return told

    def begin(self, notices: Mapping[str, Open], over: Iterable[tuple[str, str]] = ()) -> None:
        """Record notices that are to be told, and (id, target) of those that are over."""
        self.open |= {notice_id: entry for notice_id, entry in notices.items() if entry.to}
        lines = [_to_tell(notice_id, entry) for notice_id, entry in notices.items()]
        for notice_id, target in over:
            self._over(notice_id, target)
            lines.append(json.dumps({"id": notice_id, "over": target}) + "\n")
        self._state.append(NAME, "".join(lines))

    def _over(self, notice_id: str, target: str) -> None:
        entry = self.open.get(notice_id)
        if entry is not None:
            entry.to.discard(target)
            if not entry.to:
                del self.open[notice_id]

    def compact(self, told: Mapping[str, int]) -> None:
        """Write the file anew, with what is to be told still and the ids of what was told."""
        lines = [_to_tell(notice_id, entry) for notice_id, entry in self.open.items()]
        lines += [
            json.dumps({"id": notice_id, "expiry": expiry}) + "\n"
            for notice_id, expiry in told.items()
            if notice_id not in self.open
        ]
        self._state.replace(NAME, "".join(lines))


def _to_tell(notice_id: str, entry: Open) -> str:
    record = {"id": notice_id, "expiry": entry.expiry, "to": sorted(entry.to), "notice": entry.notice}
    return json.dumps(record) + "\n"


def _records(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            record = json.loads(line)
            if isinstance(record["id"], str) and ("over" in record or isinstance(record["expiry"], int)):
                yield record
        except (ValueError, KeyError, TypeError):  # torn, or not ours
            continue
