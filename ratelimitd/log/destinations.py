"""Which sinks the settings ask for; stderr where they ask for syslog alone and there is none, as in most containers."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import trio

from ratelimitd.errors import StartError
from ratelimitd.log.scribe import Scribe
from ratelimitd.log.sinks import RETRY_S, Entry, FileSink, Sink, StderrSink, SyslogSink
from ratelimitd.settings import LogSettings


def open_sinks(settings: LogSettings, folder: Path) -> list[Sink]:
    """Where the lines go; a file may be relative to `folder`. Raises StartError."""

    def syslog() -> SyslogSink:
        return SyslogSink(settings.syslog, settings.ident, settings.facility, settings.max_backlog_bytes)

    sinks: list[Sink] = []
    if settings.file:
        path = folder / settings.file
        try:
            sinks.append(FileSink(path, settings.max_backlog_bytes, bare=settings.format == "json"))
        except OSError as error:
            raise StartError(f"log.file: {path}: {error.strerror}") from error
    if lacks_syslog(settings):
        sinks.append(LateSyslog(settings.syslog, syslog, StderrSink(settings.max_backlog_bytes)))
    elif settings.syslog:
        sinks.append(syslog())
    if settings.stderr:
        sinks.append(StderrSink(settings.max_backlog_bytes))
    return sinks


def lacks_syslog(settings: LogSettings) -> bool:
    """Whether the lines would go to syslog alone, and this machine has none."""
    return bool(settings.syslog) and not (settings.file or settings.stderr) and not os.path.exists(settings.syslog)


def need_other_sinks(old: LogSettings, new: LogSettings) -> bool:
    """Whether lines go elsewhere, under another name or in another form, by the new settings."""
    return msgspec.structs.replace(old, level=new.level) != new


class LateSyslog:
    """Stderr until there is a syslog socket at the path; from then on syslog, which `syslog` makes."""

    def __init__(self, path: str, syslog: Callable[[], SyslogSink], stderr: StderrSink) -> None:
        self._path = path
        self._syslog = syslog
        self._sink: StderrSink | SyslogSink = stderr
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """How many lines it could not take."""
        return self._dropped_before + self._sink.dropped

    @property
    def on_stderr(self) -> bool:
        """Whether its lines are seen on stderr."""
        return self._sink.on_stderr

    @property
    def scribe(self) -> Scribe | None:
        """Who writes to stderr, where that is a file."""
        return self._sink.scribe

    def write(self, entries: Iterable[Entry]) -> None:
        """Write each line, or drop it."""
        self._sink.write(entries)

    async def drain(self) -> None:
        """Look for the socket once a second; then deliver the backlog of syslog."""
        while self._sink.on_stderr:
            if self._has_come():
                stderr, self._sink = self._sink, self._syslog()
                with trio.CancelScope(shield=True):  # nobody else knows of it any more
                    await trio.to_thread.run_sync(stderr.close)
                self._dropped_before = stderr.dropped
            else:
                await trio.sleep(RETRY_S)
        await self._sink.drain()

    def _has_come(self) -> bool:
        return os.path.exists(self._path)

    def reopen(self) -> None:
        """Connect again, where there is a socket."""
        self._sink.reopen()

    def close(self) -> None:
        """Deliver what can be delivered without waiting."""
        self._sink.close()
