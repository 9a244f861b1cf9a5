"""Answers as tables that are pleasant to read on a terminal. Nothing in them can control the terminal."""

import time
from collections.abc import Iterable, Sequence
from unicodedata import category, east_asian_width

from ratelimitd.control import dump
from ratelimitd.control.answers import (
    AccountView,
    Cache,
    JournalStatus,
    NotStored,
    RunningStatus,
    StoppedStatus,
    StoreStatus,
)
from ratelimitd.text import counted, escape

GAP = "  "
_DAY_S, _HOUR_S, _MINUTE_S = 86400, 3600, 60
_ON_THE_CHARACTER_BEFORE = ("Mn", "Me")
_JOINED_VOWELS = frozenset(map(chr, range(0x1160, 0x1200)))  # of Hangul: part of the syllable before


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows below a header, cells escaped, columns aligned: those whose numbers are in `right` to the right."""
    cells = [list(header), *[[cell(value) for value in row] for row in rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    return "".join(line(row, widths, right) + "\n" for row in cells)


def line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int] = ()) -> str:
    """A row of a table whose columns are so wide."""
    padded = [
        " " * (room - width(text)) + text if i in right else text + " " * (room - width(text))
        for i, (text, room) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(padded).rstrip()


def printable(text: str) -> str:
    """Text for a terminal: nothing in its lines, or between their tabs, controls one, whoever has written them."""
    return "\n".join("\t".join(map(escape, line.split("\t"))) for line in text.split("\n"))


def moment(seconds: float) -> str:
    """A time in seconds since 1970; one that no calendar has, as the number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values, a line each."""
    cells = [(name, cell(value)) for name, value in rows]
    longest = max((len(name) for name, _ in cells), default=0)
    return "".join(f"{name:<{longest}}{GAP}{value}".rstrip() + "\n" for name, value in cells)


def cell(value: object) -> str:
    """A value as it stands in a table: in one line, and harmless."""
    return f"{value:,}" if type(value) is int else escape(str(value))


def width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fitted(text: str, columns: int) -> str:
    """The text; of one that is wider its beginning, which ends in `...`."""
    if width(text) <= columns:
        return text
    end = "..."[: max(0, columns)]
    left = columns - len(end)
    for i, char in enumerate(text):
        left -= _columns(char)
        if left < 0:
            return text[:i] + end
    return text


def _columns(char: str) -> int:
    if category(char) in _ON_THE_CHARACTER_BEFORE or char in _JOINED_VOWELS:
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def duration(seconds: float) -> str:
    """`3 d 4 h`, `5 min`, `12 s`."""
    whole = int(seconds)
    if whole >= _DAY_S:
        return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
    if whole >= _HOUR_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _MINUTE_S} min" if whole >= _MINUTE_S else f"{whole} s"


def size(number: int) -> str:
    """Bytes: `812 B`, `3.4 MiB`."""
    if number < 1024:
        return f"{number} B"
    amount = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}"


def accounts(views: Sequence[AccountView]) -> str:
    """An account under each limit."""
    rows = [
        (
            view.limit,
            view.key,
            or_unlimited(view.quota),
            "-" if view.domain else view.used,
            "-" if view.domain else or_unlimited(view.left),
            "-" if view.domain else view.reset_at,
            view.source + _remarks(view),
        )
        for view in views
    ]
    return table(("LIMIT", "KEY", "QUOTA", "USED", "LEFT", "RESETS AT", "QUOTA FROM"), rows, right=(2, 3, 4))


def _remarks(view: AccountView) -> str:
    remarks = [
        *(["messages, not recipients"] if view.counts == "messages" else []),
        *([] if view.enforced else ["not enforced"]),
        *(["each account of the domain that has none of its own"] if view.domain else []),
        *([] if view.seen or view.domain else ["nothing sent yet"]),
    ]
    return f" ({', '.join(remarks)})" if remarks else ""


def or_unlimited(quota: int | None) -> int | str:
    """A quota, or what is left of it, as it is shown."""
    return "unlimited" if quota is None else quota


def cache(answer: Cache) -> str:
    """The cache, as `ratelimitctl dump` writes it to the file."""
    more = f"and {counted(answer.more, 'account more')}\n" if answer.more else ""
    return dump.HEADER + "".join(map(dump.line, answer.accounts)) + more + dump.last_line(answer.totals)


def status(answer: RunningStatus) -> str:
    """A running daemon's status."""
    since = moment(answer.started)
    decisions = ", ".join(f"{name} {number:,}" for name, number in sorted(answer.decisions.items()))
    return pairs(
        [
            ("ratelimitd", f"{answer.version}, pid {answer.pid}"),
            ("running", f"{duration(answer.uptime_s)}, since {since}"),
            ("configuration", answer.config),
            ("listening on", " ".join(answer.listen)),
            *_store(answer.store),
            *_journal(answer.journal),
            ("not stored", _not_stored(answer.not_stored)),
            ("accounts", ", ".join(f"{name} {number:,}" for name, number in answer.accounts.items())),
            ("requests", f"{answer.requests:,}, {answer.per_second:,} per second"),
            ("decisions", decisions or "none"),
            ("no login", counted(answer.without_login, "request")),
            ("connections", f"{answer.connections:,}, {answer.parked:,} waiting for the store"),
            ("refused", f"{counted(answer.refused_peers, 'peer')}, {counted(answer.too_long, 'request too long')}"),
            ("not Postfix", counted(answer.not_postfix, "connection closed")),
            ("timed out", counted(answer.timeouts, "connection")),
            ("memory", counted(answer.evicted, "account evicted")),
            ("  delayed", counted(answer.lookups_held, "lookup")),
            ("  forgotten", counted(answer.transactions_forgotten, "transaction")),
            ("log", f"{counted(answer.log_lines_dropped, 'line dropped')}, {answer.log_lines_left_out:,} left out"),
        ]
    )


def _store(store: StoreStatus) -> list[tuple[str, object]]:
    ago, ms = store.last_flush_s_ago, store.last_flush_ms
    health = "up" if store.up else "UNAVAILABLE: counting in memory and journal"
    return [
        ("store", f"{store.name}, {health}"),
        ("  flushed", "not yet" if ago is None else f"{duration(ago)} ago, in {ms} ms"),
        ("  flushes", f"{store.flushes:,}, {store.failures:,} failed, {counted(store.rejected, 'record refused')}"),
    ]


def _journal(journal: JournalStatus) -> list[tuple[str, object]]:
    unwritten = f", {counted(journal.unwritten, 'record not written')}" if journal.unwritten else ""
    return [
        ("journal", f"{counted(journal.segments, 'segment')}, {size(journal.bytes)}{unwritten}"),
        ("  error", journal.error or "none"),
    ]


def _not_stored(left: NotStored) -> str:
    return f"{counted(left.recipients, 'recipient')} of {counted(left.accounts, 'account')}"


def status_without_daemon(answer: StoppedStatus, reason: str) -> str:
    """What is found while no daemon is running; `reason` says how that is known."""
    store = answer.store
    return pairs(
        [
            ("ratelimitd", f"is not running: {reason}"),
            ("configuration", answer.config),
            ("store", f"{store.name}, {'up' if store.up else 'UNAVAILABLE'}"),
            ("not stored", _not_stored(answer.not_stored)),
        ]
    )
