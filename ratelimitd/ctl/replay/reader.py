"""Reads one file of a log: its events with their instants, in the order of the lines; and counts its lines.

A line is syslog's or a program's own log file's, perhaps in something else, or an entry of `journalctl -o export`. One
that cannot be read is counted, and the first few are kept to be shown.
"""

from collections.abc import Callable, Iterator
from datetime import tzinfo

from ratelimitd.ctl.replay.lines import Event, Unreadable, of_message, of_syslog
from ratelimitd.ctl.replay.sources import MAX_LINE, Source
from ratelimitd.ctl.replay.times import Stamps
from ratelimitd.ctl.replay.wrapped import after_second_time, exported, unwrapped

SHOWN = 3
"""Unreadable lines of a file that are kept."""
_EXPORT = (b"__CURSOR=", b"__REALTIME_TIMESTAMP=")
_FIELDS = (b"__REALTIME_TIMESTAMP", b"_HOSTNAME", b"SYSLOG_IDENTIFIER", b"MESSAGE")


class Reader:
    """Reads one file. `with_recipients`: also who a mail's recipients are; `tick` is called every now and then."""

    def __init__(self, name: str, zone: tzinfo, tick: Callable[["Reader"], None], *, with_recipients: bool) -> None:
        """Raises Refused where the file cannot be opened."""
        self.name = name
        self.lines = self.unreadable = 0
        self.shown: list[tuple[int, bytes]] = []
        self.damage = ""
        self.position = 0
        source = Source(name)
        self.size = source.size
        self.stamps = Stamps(zone, source.modified)
        self._zone = zone
        self._tick = tick
        self._with_recipients = with_recipients
        self._is_wrapped = False  # the line before was
        self._has_two_times = False  # lines have a container's time and their own
        self._open: Source | None = source

    def begins(self) -> int:
        """The first instant of the file; 0 where it has none, or can be read only once."""
        if not self.size:
            return 0
        source = self._take()
        try:
            stamps = Stamps(self._zone, source.modified)
            for lines in source.lines():
                for line in lines:
                    if line.startswith(_EXPORT[1]):
                        stamps.first = exported(line.partition(b"=")[2]) or 0
                    if stamps.first or self._stamp(line, stamps)[0] is not None:
                        return stamps.first
        finally:
            source.close()
        return 0

    def events(self) -> Iterator[tuple[int, Event]]:
        """What the lines say, each with its instant."""
        source = self._take()
        try:
            if any(map(source.begins, _EXPORT)):
                yield from self._entries(source)
            else:
                yield from self._lines(source)
        finally:
            self.damage = source.damage
            self.position = self.size
            source.close()

    def _take(self) -> Source:
        """The file, from its beginning."""
        source, self._open = self._open or Source(self.name), None
        return source

    def _lines(self, source: Source) -> Iterator[tuple[int, Event]]:
        stamps, read, with_recipients = self.stamps, self.stamps.read, self._with_recipients
        for lines in source.lines():
            self.position = source.position
            self._tick(self)
            for number, line in enumerate(lines, self.lines + 1):
                stamp = None if self._is_wrapped else read(line)
                whole = line
                if stamp is None:
                    stamp, line = self._stamp(line.lstrip(b"\0"), stamps)
                if stamp is None or len(line) > MAX_LINE:
                    self._unreadable(number, whole)
                elif (
                    b"sasl_username" in line
                    or b", nrcpt=" in line
                    or (with_recipients and (b": to=<" in line or b": removed" in line))
                ):
                    instant, end = stamp
                    try:
                        event = self._event(line[end:])
                    except Unreadable:
                        self._unreadable(number, whole)
                        continue
                    if event is not None:
                        yield instant, event
            self.lines += len(lines)

    def _stamp(self, line: bytes, stamps: Stamps) -> tuple[tuple[int, int] | None, bytes]:
        """The time of a line, and the line without what it is in; as the line before was read, it is tried first."""
        for as_wrapped in (self._is_wrapped, not self._is_wrapped):
            found = unwrapped(line) if as_wrapped else line
            stamp = stamps.read(found) if found is not None else None
            if found is not None and stamp is not None:
                self._is_wrapped = as_wrapped
                return stamp, found
        return None, line

    def _event(self, rest: bytes) -> Event | None:
        """What a line says after its time. Raises Unreadable."""
        if not self._has_two_times:
            try:
                return of_syslog(rest)
            except Unreadable:
                if after_second_time(rest) == rest:
                    raise
                self._has_two_times = True
        return of_syslog(after_second_time(rest))

    def _entries(self, source: Source) -> Iterator[tuple[int, Event]]:
        """The entries of journald's export format: fields, each a line or binary, and an empty line."""
        while (fields := _entry(source)) is not None:
            self.lines += 1
            if self.lines % 1000 == 0:
                self.position = source.position
                self._tick(self)
            instant = exported(fields.get(_FIELDS[0], b""))
            if instant is None:
                self._unreadable(self.lines, b"an entry without a time")
                continue
            self.stamps.first = min(self.stamps.first or instant, instant)
            self.stamps.latest = max(self.stamps.latest, instant)
            host, program, message = [fields.get(name, b"") for name in _FIELDS[1:]]
            try:
                event = of_message(host, program, message)
            except Unreadable:
                self._unreadable(self.lines, message)
                continue
            if event is not None:
                yield instant, event

    def _unreadable(self, number: int, line: bytes) -> None:
        if not line.strip() or line.startswith(b"-- "):  # journalctl's own, as "-- Boot 5e6f --"
            return
        self.unreadable += 1
        if len(self.shown) < SHOWN:
            self.shown.append((number, line))


def _entry(source: Source) -> dict[bytes, bytes] | None:
    """The next entry's fields that matter here; None at the end."""
    fields: dict[bytes, bytes] = {}
    any_field = False
    while line := source.line():
        if line == b"\n":
            if any_field:
                return fields
            continue
        any_field = True
        name, separator, value = line.rstrip(b"\n").partition(b"=")
        if not line.endswith(b"\n"):
            _skip_line(source, line)
        elif not separator:
            value = _binary(source)
        if name in _FIELDS:
            fields.setdefault(name, value)
    return fields if any_field else None


def _skip_line(source: Source, begun: bytes) -> None:
    """Leave out what is left of a line that is too long."""
    while begun and not begun.endswith(b"\n"):
        begun = source.line()


def _binary(source: Source) -> bytes:
    """A field whose length comes before it: eight bytes, the lowest first."""
    length = int.from_bytes(source.read(8), "little")
    value = source.read(min(length, MAX_LINE))
    left = length - len(value)
    while left > 0 and (skipped := source.read(min(left, MAX_LINE))):
        left -= len(skipped)
    source.line()
    return value
