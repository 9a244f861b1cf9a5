"""What an account used in each window: the history, and what is not stored yet, as an administrator sees it.

It works on memory and store together, as accounts.py does: of a running daemon or, while none is running, of what one
left. Of a sliding limit a window is a stretch of its period, as core/past.py has it.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import tzinfo

from ratelimitd.control.answers import AccountHistory, LimitHistory, UsedWindow
from ratelimitd.control.commands import NO, History, Refused
from ratelimitd.control.naming import Name, Naming
from ratelimitd.control.views import source
from ratelimitd.core.calendars import Calendar
from ratelimitd.core.counters import Counter
from ratelimitd.core.limits import UNLIMITED, Limit
from ratelimitd.core.past import Used, begin, past
from ratelimitd.core.rows import Account
from ratelimitd.core.standing import apart
from ratelimitd.errors import StoreError
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import walk

MAX_WINDOWS = 5000
"""Windows of an account under one limit: a megabyte of an answer. Of more the last ones are given."""

WINDOWS = 50
"""Windows per turn: it takes up to a tenth of a millisecond to find out when one begins."""


def check_kept(history_days: int) -> None:
    """Raise Refused, which says how to have a history, where none is kept."""
    if not history_days:
        raise Refused(
            "no history is kept: set history_days = 30 under [store] and run `ratelimitctl reload`; "
            "what is counted from then on is kept",
            NO,
        )


def midnights(zone: tzinfo, now: int, days: int) -> list[int]:
    """Where each of the last `days` begins, today among them, and where today ends."""
    calendar = Calendar("daily", zone, "sunday")
    found = [calendar.end(now)]
    for _ in range(days):
        found.append(calendar.begin(found[-1]))
    return found[::-1]


class Histories:
    """What accounts used."""

    def __init__(self, sync: StoreSync, naming: Naming, clock: Callable[[], float] = time.time) -> None:
        self._sync = sync
        self._naming = naming
        self._clock = clock

    async def answer(self, command: History) -> AccountHistory:
        """An account under every limit, or under the one that is named. Raises Refused."""
        check_kept(self._sync.history_days)
        names = self._naming.named(command.key, command.limit)
        known = await self._naming.known(names)
        targets = await self._naming.targets(names)
        limits: list[LimitHistory] = []
        for name in names:
            history = await self._under(name, known, command)
            if history is not None:
                limits.append(history)
        return AccountHistory(
            key=command.key,
            found=bool(targets) or any(limit.windows for limit in limits),
            days=command.days,
            history_days=self._sync.history_days,
            limits=limits,
        )

    async def _under(self, name: Name, known: Mapping[Account, Counter], command: History) -> LimitHistory | None:
        """The account under one limit, as `show` picks its key; or a key that only the history knows."""
        now = int(self._clock())
        limit = name.meter.limit
        since = midnights(limit.period.zone, now, command.days)[0]
        counters = [known[Account(name.limit, key)] for key in name.keys if (name.limit, key) in known]
        if counters:
            return await self._history(limit, counters[0], since)
        for key in name.keys if not known else ():
            history = await self._history(limit, apart(name.meter, key, None, now), since)
            if history.windows:
                return history
        if name.of_login is not None and ("@" in command.key or not known):
            return await self._history(limit, apart(name.meter, name.of_login, None, now), since)
        return None

    async def _history(self, limit: Limit, counter: Counter, since: int) -> LimitHistory:
        reading = past(limit.period, UNLIMITED, since)
        last = _Last()

        def take(end: int, used: int) -> None:
            last.add(reading.add(end, used))

        try:
            await self._sync.windows(Account(limit.name, counter.key), since, take)
        except StoreError as error:
            raise Refused(str(error), NO) from error
        last.add(reading.finish())
        now = int(self._clock())
        windows: list[UsedWindow] = []
        async for found in walk([*last.windows], WINDOWS):
            windows += [window(limit, one, now) for one in found]
        return LimitHistory(
            limit=limit.name,
            key=counter.key,
            period=limit.period.name,
            sliding=limit.sliding,
            counts="messages" if limit.by_message else "recipients",
            quota=None if counter.quota == UNLIMITED else counter.quota,
            source=source(counter),
            used=last.used,
            windows=windows,
            left_out=last.number - len(windows),
        )


class _Last:
    """The last windows, MAX_WINDOWS at most; how many there were, and what was used in all of them."""

    def __init__(self) -> None:
        self.windows: deque[Used] = deque(maxlen=MAX_WINDOWS)
        self.number = self.used = 0

    def add(self, window: Used | None) -> None:
        """The next one."""
        if window:
            self.windows.append(window)
            self.number += 1
            self.used += window.used


def window(limit: Limit, used: Used, now: int) -> UsedWindow:
    """A window as it is shown."""
    describe, begins = limit.period.describe, begin(limit.period, used.end)
    return UsedWindow(
        begin=begins or None,
        begin_at=describe(begins) if begins else None,
        end=used.end,
        end_at=describe(used.end),
        used=used.used,
        most=used.most,
        running=used.end > now,
    )
