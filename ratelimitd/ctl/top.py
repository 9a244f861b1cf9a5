"""`ratelimitctl top`: who sends most in this period, on a terminal, refreshed in place until q or Ctrl-C."""

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ratelimitd.control.answers import AccountView, Ranking
from ratelimitd.ctl import tables
from ratelimitd.text import escape

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"

Earlier = dict[tuple[str, str], int]
"""What was used, by limit and key."""


def frame(ranking: Ranking, before: Ranking | None = None) -> str:
    """One ranking as text; with the one before it, recipients per minute since then."""
    earlier: Earlier = {}
    elapsed_s = 0.0
    if before is not None:
        elapsed_s = ranking.time - before.time
        earlier = {(view.limit, view.key): view.used for limit in before.limits for view in limit.accounts}
    text = f"recipients in the current period, most first  {tables.moment(ranking.time)}\n"
    for limit in ranking.limits:
        text += f"\n{escape(limit.limit)}, {escape(limit.period)}\n"
        rows = [_row(view, earlier, elapsed_s) for view in limit.accounts]
        header = ("KEY", "USED", "QUOTA", "%", "PER MIN", "RESETS AT")
        text += tables.table(header, rows, right=(1, 2, 3, 4)) if rows else "nobody has sent yet\n"
    return text


def _row(view: AccountView, earlier: Earlier, elapsed_s: float) -> tuple[object, ...]:
    was = earlier.get((view.limit, view.key))
    share = "" if view.quota is None else view.used * 100 // view.quota
    rate = "" if was is None or elapsed_s <= 0 else max(0, round((view.used - was) * 60 / elapsed_s))
    return (view.key, view.used, tables.or_unlimited(view.quota), share, rate, view.reset_at)


def watch(ask: Callable[[], Ranking], interval_s: float) -> None:
    """Show rankings in place until a q is typed. Raises what `ask` raises."""
    before: Ranking | None = None
    with _screen():
        while True:
            ranking = ask()
            _draw(frame(ranking, before))
            before = ranking
            if _q_typed_within(interval_s):
                return


def _draw(text: str) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [line[: columns - 1] for line in tables.printable(text).splitlines()[: rows - 1]]
    sys.stdout.write(_HOME + "".join(line + _CLEAR_LINE + "\r\n" for line in lines) + _CLEAR_REST)
    sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    typed = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if typed else []
    sys.stdout.write(_ENTER)
    try:
        if typed:
            tty.setcbreak(sys.stdin)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if typed:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _q_typed_within(seconds: float) -> bool:
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))[0]:
        typed = os.read(sys.stdin.fileno(), 64)
        if not typed or typed.lower().startswith(b"q"):
            return True
    return False
