"""`ratelimitctl top`: asks for rankings, and shows them on a terminal, in place, until q or Ctrl-C.

On a screen a daemon that does not answer for a while is a line, not the end: the last ranking stays.

Looked at: rich 15.0 takes 71 to 83 ms of processor time and 6 to 7 MB to import (console, table, live). It reads no
keys, restores no terminal after SIGTERM or Ctrl-Z, and drops no columns where there is no room; what is left of it is
the width of characters, five colours and an alternate screen, which are a few lines each. So it is our own.
"""

import time
from collections.abc import Iterator
from contextlib import suppress

from ratelimitd.control.answers import Ranking
from ratelimitd.control.commands import MAX_COUNT, Top
from ratelimitd.ctl.top.asking import Ask, Asking
from ratelimitd.ctl.top.frame import KEYS, Shown, lines
from ratelimitd.ctl.top.screen import Screen

_LONG_S = 1.0
"""A daemon that has not answered for so long does not answer."""


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
    watched = _Watched(Shown(ask(wish.command()), None, wish.sort, wish.count), wish)
    with suppress(EOFError, KeyboardInterrupt), Screen() as screen:
        asking = Asking(ask, screen.wake)
        while True:
            watched.take(asking)
            screen.draw(lines(watched.shown, watched.trouble, *screen.size()))
            typed = screen.wait(watched.patience_s(asking))
            if typed is not None and "q" in typed:
                return
            watched.go_on(asking, typed)


class _Watched:
    """What is on the screen, what is wrong with it, and when it is asked for again."""

    def __init__(self, shown: Shown, wish: Wish) -> None:
        self.shown = shown
        self.trouble = ""
        self._wish = wish
        self._before: Ranking | None = None  # what the next answer is compared with
        self._due = time.monotonic() + wish.interval_s
        self._at_once = False  # a key has changed the order

    def take(self, asking: Asking) -> None:
        """Take the answer, if it is there; else say where it has been missing for long."""
        answer = asking.answer()
        if isinstance(answer, Ranking):
            self.shown, self.trouble = Shown(answer, self._before, self._wish.sort, self._wish.count), ""
        elif answer is not None:  # it restarts, or a reload has removed the limit
            self.shown, self.trouble = self.shown._replace(sort=self._wish.sort), f"asking again: {answer}"
        elif (waiting_s := asking.waiting_s or 0) >= _LONG_S:
            self.trouble = f"no answer for {waiting_s:.0f} s"

    def patience_s(self, asking: Asking) -> float:
        """How long nothing but a key or an answer changes anything."""
        return _LONG_S if asking.waiting_s is not None else self._due - time.monotonic()

    def go_on(self, asking: Asking, typed: str | None) -> None:
        """Ask again, if it is time to or a key wants another order."""
        if typed and (chosen := [KEYS[key] for key in typed if key in KEYS]):
            self._wish.sort, self._at_once = chosen[-1], True
        if asking.waiting_s is not None:
            return
        is_due = time.monotonic() >= self._due
        if not is_due and not self._at_once:
            return
        if is_due:
            self._due = time.monotonic() + self._wish.interval_s
        self._before = self.shown.now if is_due else self.shown.before
        self._at_once = False
        asking.begin(self._wish.command())
