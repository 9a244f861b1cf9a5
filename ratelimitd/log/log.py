"""The log: decisions, and events over structlog, with renderers of our own.

A decision becomes the line of the Perl daemon, to the byte:

    QUEUEID: client=NAME[ADDR], sasl_method=M, sasl_username=U, recipient_count=N, curr_count=USED/QUOTA, status=S

(with `, limit=NAME` behind it where several limits are set), or one JSON object with its time in it. Everything else
the daemon says is an event and its fields. Nothing that a client sent can end a line, start a field or colour a
terminal.
"""

import json
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any

import structlog
import trio

from ratelimitd.core.standing import reset
from ratelimitd.core.verdict import FREE, INSERT, OVER_QUOTA, UPDATE, WOULD_BLOCK, Verdict
from ratelimitd.log.sinks import PRIORITIES, Entry, Sink
from ratelimitd.settings import LogSettings
from ratelimitd.text import MAX_FIELD, cut, escape, spell

LEVELS = {INSERT: "notice", UPDATE: "info", FREE: "info", OVER_QUOTA: "warning", WOULD_BLOCK: "warning"}
_STRUCTLOG_LEVELS = {"critical": 50, "error": 40, "warning": 30, "notice": 20, "info": 20, "debug": 10}


MAX_LINE = 4096
"""Characters of a line; RFC 5424 asks a syslogd to take 2,048 bytes, and no honest login or name is as long."""
MAX_OBJECT = MAX_LINE - 64
"""Of one in JSON, which is ASCII, without its time: what is longer would not fit into a pipe at once."""
SHORT = 30
"""Characters of each text in a JSON object that is too long; each may take 12 there (a pair of surrogates)."""


def policyd_line(verdict: Verdict, with_limit: bool) -> str:
    """The Perl daemon's line; `verdict.counter` is set."""
    asked, counter = verdict.request, verdict.counter
    assert counter is not None
    fields: tuple[str, ...]
    fields = (asked.queue_id, asked.client_name, asked.client_address, asked.sasl_method, asked.sasl_username)
    told = "".join(fields)
    if "," in told or "\\" in told or len(told) > MAX_LINE or not told.isprintable():
        fields = _harmless(*map(cut, fields) if len(told) > MAX_LINE else fields)
    queue_id, name, address, method, username = fields
    limit = f", limit={counter.meter.limit.name}" if with_limit else ""
    return (
        f"{queue_id}: client={name}[{address}], sasl_method={method}, sasl_username={username}, recipient_count="
        f"{verdict.recipients}, curr_count={verdict.used}/{counter.quota}, status={verdict.status}{limit}"
    )


def _harmless(*fields: str) -> tuple[str, ...]:
    """The fields of a line without what could end it, or begin a field that is not ours: only a comma could."""
    return tuple([spell(field, but=",") for field in fields])


def json_line(verdict: Verdict, with_limit: bool = True) -> str:
    """The same as a JSON object, with the key, and always with its limit."""
    request, counter = verdict.request, verdict.counter
    assert counter is not None
    names = (
        "queue_id",
        "instance",
        "client_name",
        "client_address",
        "sasl_method",
        "sasl_username",
        "sender",
    )
    fields = {
        "status": verdict.status,
        **{name: request[name] for name in names},
        "recipient_count": verdict.recipients,
        "limit": counter.meter.limit.name,
        "key": counter.key,
        "used": verdict.used,
        "quota": counter.quota,
        "reset": reset(counter),
    }
    return _object(fields, MAX_FIELD)


def _object(fields: Mapping[str, object], longest: int) -> str:
    """A line of JSON, its texts cut; where it would be too long a line they are cut shorter, and it is still JSON."""
    line = json.dumps({name: cut(v, longest) if isinstance(v, str) else v for name, v in fields.items()})
    if len(line) <= MAX_OBJECT:
        return line
    return json.dumps({name: cut(v, SHORT) if isinstance(v, str) else v for name, v in fields.items()})


def _at(now: datetime, line: str) -> str:
    """The line of JSON with its time in front."""
    return f'{{"time": "{now.isoformat(timespec="milliseconds")}", {line[1:]}'


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float)) else str(value)


class Log:
    """The daemon's log: `decisions` for verdicts; `debug` to `error` for events with fields, over structlog."""

    def __init__(
        self, sinks: Sequence[Sink], settings: LogSettings | None = None, *, several_limits: bool = False
    ) -> None:
        self.sinks = list(sinks)
        self._gone: list[Sink] = []  # replaced, and not closed yet
        self._dropped_before = 0  # by sinks that are gone
        self._replaced = trio.Event()
        self.configure(settings or LogSettings(), several_limits=several_limits)

    def configure(self, settings: LogSettings, *, several_limits: bool) -> None:
        """Take format and level; with several limits each decision's line names its own. At any time.

        Where the lines go is `replace`'s.
        """
        level = settings.level
        self._with_limit = several_limits
        self._levels = frozenset(name for name, value in PRIORITIES.items() if value <= PRIORITIES[level])
        self._json = settings.format == "json"
        self._line = json_line if self._json else policyd_line
        self._lowest = _STRUCTLOG_LEVELS[level]
        events = structlog.wrap_logger(
            _Output(self),
            processors=[self._render],
            wrapper_class=structlog.make_filtering_bound_logger(self._lowest),
        ).bind()
        self.debug, self.info = events.debug, events.info
        self.warning, self.error = events.warning, events.error

    def decisions(self, verdicts: Sequence[Verdict]) -> None:
        """A line for each of a batch's verdicts, which have a status; all in one write."""
        line, levels, with_limit = self._line, self._levels, self._with_limit
        entries = [(level, line(v, with_limit)) for v in verdicts if (level := LEVELS[v.status]) in levels]
        if self._json:
            now = datetime.now(UTC)
            entries = [(level, _at(now, text)) for level, text in entries]
        self.take(entries)

    def _render(
        self, _: object, method: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[list[Entry]], dict[str, Any]]:
        """The structlog processor."""
        return ([self._event(method, event)],), {}

    def _event(self, level: str, event: MutableMapping[str, Any]) -> Entry:
        if self._json:
            names = ("event", *(name for name in event if name != "event"))
            said = {"level": level} | {name: _plain(event[name]) for name in names}
            return level, _at(datetime.now(UTC), _object(said, MAX_LINE))
        text = event.pop("event")
        fields = ", ".join([f"{name}={value}" for name, value in event.items()])
        return level, escape(cut(f"{text}: {fields}" if fields else text, MAX_LINE))

    def take(self, entries: list[Entry]) -> None:
        """Write rendered lines."""
        for sink in self.sinks:
            sink.write(entries)

    def shows(self, level: str) -> bool:
        """Whether an event of this level is seen on stderr."""
        return _STRUCTLOG_LEVELS[level] >= self._lowest and any(sink.on_stderr for sink in self.sinks)

    @property
    def dropped(self) -> int:
        """Lines that no reader took."""
        return self._dropped_before + sum(sink.dropped for sink in (*self.sinks, *self._gone))

    def reopen(self) -> list[str]:
        """Reopen the sinks: the file was rotated. What could not be reopened, and why; the old one is kept then."""
        failures: list[str] = []
        for sink in self.sinks:
            try:
                sink.reopen()
            except OSError as error:
                failures.append(str(error))
        return failures

    async def drain(self) -> None:
        """Deliver the sinks' backlogs; runs as long as the daemon."""
        while True:
            self._replaced = trio.Event()
            async with trio.open_nursery() as nursery:
                for sink in self.sinks:
                    nursery.start_soon(sink.drain)
                for sink in list(self._gone):
                    nursery.start_soon(self._part_with, sink)
                await self._replaced.wait()
                nursery.cancel_scope.cancel()

    async def _part_with(self, sink: Sink) -> None:
        """Close a sink that was replaced."""
        await trio.to_thread.run_sync(sink.close)
        self._gone.remove(sink)
        self._dropped_before += sink.dropped

    def replace(self, sinks: Sequence[Sink]) -> None:
        """Write to other sinks from now on; to a file that stays, after what still waits for its disk."""
        for new, old in product(sinks, (*self._gone, *self.sinks)):
            if new.scribe is not None and old.scribe is not None:
                new.scribe.follow(old.scribe)
        self._gone += self.sinks
        self.sinks = list(sinks)
        self._replaced.set()

    def close(self) -> None:
        """Deliver what can be delivered without waiting for a reader. It blocks where a disk is slow."""
        for sink in (*self._gone, *self.sinks):  # in this order: a file of both is written to in it
            sink.close()


class _Output:
    """What structlog writes to: every level ends in `Log.take`."""

    def __init__(self, log: Log) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = log.take
