"""`ratelimitctl top`: asks for rankings, and shows them on a terminal, in place, until q or Ctrl-C.

On a screen a daemon that does not answer for a while is a line, not the end: the last ranking stays.

Looked at: rich 15.0 takes 71 to 83 ms of processor time and 6 to 7 MB to import (console, table, live). It reads no
keys, restores no terminal after SIGTERM or Ctrl-Z, and drops no columns where there is no room; what is left of it is
the width of characters, five colours and an alternate screen, which are a few lines each. So it is our own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from ratelimitd.control.answers import Ranking
from ratelimitd.control.commands import MAX_COUNT, Refused, Top
from ratelimitd.ctl.top.frame import KEYS, Shown, lines
from ratelimitd.ctl.top.screen import Screen

Ask = Callable[[Top], Ranking]


class Wish:
    """What is to be shown: which limit, None for all; how many accounts; which first; how often."""

    def __init__(self, limit: str | None, count: int, sort: str, interval_s: float) -> None:
        self.limit, self.count, self.sort, self.interval_s = limit, count, sort, interval_s

    def command(self, *, once: bool = True) -> Top:
        """What the daemon is asked. It does not know what is sent per minute, so that is ranked here, of many."""
        by_rate = self.sort == "rate"
        return Top(
            self.limit,
            MAX_COUNT if by_rate else self.count,
            self.interval_s,
            once,
            "share" if self.sort == "share" else "use",
        )


def once(ask: Ask, wish: Wish) -> Shown:
    """One ranking; of what is sent per minute the second of two."""
    now = ask(wish.command())
    if wish.sort != "rate":
        return Shown(now, None, wish.sort, wish.count)
    time.sleep(wish.interval_s)
    return Shown(ask(wish.command()), now, wish.sort, wish.count)


def each(rankings: Iterator[Ranking], wish: Wish) -> Iterator[Ranking]:
    """Rankings as they come, in the order that is wished."""
    before: Ranking | None = None
    for now in rankings:
        yield Ranking(now.time, Shown(now, before, wish.sort, wish.count).limits())
        before = now


def watch(ask: Ask, wish: Wish) -> None:
    """Show rankings in place until a q is typed. Raises what `ask` raises first."""
    shown, trouble = Shown(ask(wish.command()), None, wish.sort, wish.count), ""
    due = time.monotonic() + wish.interval_s
    with suppress(EOFError, KeyboardInterrupt), Screen() as screen:
        while True:
            screen.draw(lines(shown, trouble, *screen.size()))
            typed = screen.wait(due - time.monotonic())
            before = shown.before
            if typed is None:
                due, before = time.monotonic() + wish.interval_s, shown.now
            elif "q" in typed:
                return
            elif chosen := [KEYS[key] for key in typed if key in KEYS]:
                wish.sort = chosen[-1]
            else:
                continue
            try:
                shown, trouble = Shown(ask(wish.command()), before, wish.sort, wish.count), ""
            except Refused as error:  # it restarts, or a reload has removed the limit
                shown, trouble = shown._replace(sort=wish.sort), str(error)
