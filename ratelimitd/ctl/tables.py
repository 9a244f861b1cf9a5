"""Tables that are pleasant to read on a terminal, and what a terminal is not to be told."""

import time
from collections.abc import Iterable, Sequence
from unicodedata import combining, east_asian_width

from ratelimitd.control.commands import Answer
from ratelimitd.text import escape

GAP = "  "
_DAY_S, _HOUR_S, _MINUTE_S = 86400, 3600, 60


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows below a header, columns aligned, those of the numbers `right` to the right; cells escaped."""
    cells = [list(header), *[[_cell(cell) for cell in row] for row in rows]]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            " " * (width - _width(cell)) + cell if i in right else cell + " " * (width - _width(cell))
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(GAP.join(padded).rstrip() + "\n")
    return "".join(lines)


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values, a line each."""
    cells = [(name, _cell(value)) for name, value in rows]
    width = max((len(name) for name, _ in cells), default=0)
    return "".join(f"{name:<{width}}{GAP}{value}".rstrip() + "\n" for name, value in cells)


def _cell(value: object) -> str:
    return f"{value:,}" if type(value) is int else escape(str(value))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


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


def accounts(limits: Sequence[Answer]) -> str:
    """An account under each limit."""
    rows = [
        (
            view["limit"],
            view["key"],
            _or_unlimited(view["quota"]),
            view["used"],
            _or_unlimited(view["left"]),
            view["reset_at"],
            view["source"] + _remarks(view),
        )
        for view in limits
    ]
    return table(("LIMIT", "KEY", "QUOTA", "USED", "LEFT", "RESETS AT", "QUOTA FROM"), rows, right=(2, 3, 4))


def _remarks(view: Answer) -> str:
    remarks = [
        *(["messages, not recipients"] if view["counts"] == "messages" else []),
        *([] if view["enforced"] else ["not enforced"]),
        *([] if view["seen"] else ["nothing sent yet"]),
    ]
    return f" ({', '.join(remarks)})" if remarks else ""


def _or_unlimited(quota: int | None) -> int | str:
    return "unlimited" if quota is None else quota


def _plural(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def status(answer: Answer) -> str:
    """A running daemon's status."""
    store, journal, left = answer["store"], answer["journal"], answer["not_stored"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(answer["started"]))
    flushed = store["last_flush_s_ago"]
    decisions = ", ".join(f"{name} {number:,}" for name, number in sorted(answer["decisions"].items()))
    health = "up" if store["up"] else "AWAY: counting in memory and journal"
    unwritten = f", {journal['unwritten']:,} records not written" if journal["unwritten"] else ""
    return pairs(
        [
            ("ratelimitd", f"{answer['version']}, pid {answer['pid']}"),
            ("running", f"{duration(answer['uptime_s'])}, since {since}"),
            ("configuration", answer["config"]),
            ("listening on", " ".join(answer["listen"])),
            ("store", f"{store['name']}, {health}"),
            ("  flushed", "not yet" if flushed is None else f"{duration(flushed)} ago, in {store['last_flush_ms']} ms"),
            ("  flushes", f"{store['flushes']:,}, {store['failures']:,} failed, {store['rejected']:,} records refused"),
            ("journal", f"{_plural(journal['segments'], 'segment')}, {size(journal['bytes'])}{unwritten}"),
            ("  error", journal["error"] or "none"),
            ("not stored", f"{left['recipients']:,} recipients of {left['accounts']:,} accounts"),
            ("accounts", ", ".join(f"{name} {number:,}" for name, number in answer["accounts"].items())),
            ("requests", f"{answer['requests']:,}, {answer['per_second']:,} per second"),
            ("decisions", decisions or "none"),
            ("no login", f"{answer['without_login']:,} requests"),
            ("connections", f"{answer['connections']:,}, {answer['parked']:,} waiting for the store"),
            ("refused", f"{answer['refused_peers']:,} peers, {answer['too_long']:,} requests too long"),
            ("timed out", f"{answer['timeouts']:,} connections"),
            ("memory", f"{answer['evicted']:,} accounts put out, {answer['lookups_held']:,} lookups held back"),
            ("  forgotten", _plural(answer["transactions_forgotten"], "transaction")),
            ("log", f"{answer['log_lines_dropped']:,} lines dropped, {answer['log_lines_left_out']:,} left out"),
        ]
    )
