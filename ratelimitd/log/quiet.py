"""Log lines that a client can cause as often as it likes: a few of each kind in a minute, then only their number."""

from dataclasses import dataclass

import trio

from ratelimitd.log.log import Log

LINES = 10
"""Lines of one kind in a minute."""
MINUTE_S = 60.0


@dataclass(slots=True)
class _Minute:
    ends: float
    level: str
    written: int = 0
    left_out: int = 0


class QuietLog:
    """A log for what strangers and broken clients cause; `left_out` counts the lines that were not written."""

    def __init__(self, log: Log) -> None:
        self.left_out = 0
        self.log = log  # where every line is written
        self._minutes: dict[str, _Minute] = {}

    def warning(self, event: str, **fields: object) -> None:
        """Log a warning, unless there were enough of its kind this minute."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log an error, unless there were enough of its kind this minute."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        now = trio.current_time()
        minute = self._minutes.get(event)
        if minute is None or minute.ends <= now:
            self._end(event)
            minute = self._minutes[event] = _Minute(now + MINUTE_S, level)
        if minute.written < LINES:
            minute.written += 1
            getattr(self.log, level)(event, **fields)
        else:
            minute.left_out += 1
            self.left_out += 1

    def _end(self, event: str) -> None:
        minute = self._minutes.pop(event, None)
        if minute is not None and minute.left_out:
            getattr(self.log, minute.level)(event, more_of_these=minute.left_out)

    def tick(self) -> None:
        """Say how many were left out in the minutes that are over."""
        now = trio.current_time()
        for event in [event for event, minute in self._minutes.items() if minute.ends <= now]:
            self._end(event)

    def close(self) -> None:
        """Say how many were left out in the minutes that are not over."""
        for event in list(self._minutes):
            self._end(event)
