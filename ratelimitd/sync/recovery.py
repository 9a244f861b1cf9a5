"""The start: what earlier runs have answered but not stored is read from the journal back into memory."""

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from ratelimitd.core.calendars import Unknown
from ratelimitd.core.counters import Counter, Window
from ratelimitd.core.limits import UNLIMITED
from ratelimitd.core.memo import Memo
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import MAX_USED
from ratelimitd.errors import JournalError, StartError
from ratelimitd.folders import is_there
from ratelimitd.log.log import Log
from ratelimitd.state import records
from ratelimitd.state.backlog import ASIDE, Backlog, unknown
from ratelimitd.state.journal import Progress
from ratelimitd.state.segments import Recovered
from ratelimitd.sync.flush import say_set_aside
from ratelimitd.sync.schedule import StoreSync

LOOKS = 5
"""How often `look` reads the journal again where its files go meanwhile."""


async def recover(
    backlog: Backlog, sync: StoreSync, policy: Policy, log: Log, progress: Progress | None = None
) -> None:
    """Replay what the store does not have, and begin this run's first segment. Raises StartError.

    While the store is unavailable all segments are replayed; the first flush finds out what was stored already. The
    memo takes also transactions that are stored, as many as it holds: Postfix may ask again about the last ones.
    `progress` is called with the bytes that are read.
    """
    try:
        segments, last = backlog.read(progress)
    except (JournalError, OSError) as error:
        raise StartError(f"journal: {error}") from error
    recorded = await sync.begin(last, {segment.node for segment in segments})
    left = [segment for segment in segments if segment.number > recorded.get(segment.node, 0)]
    for run in _unknown(segments, recorded):
        for segment in segments:
            if segment.node == run.node:
                _keep_aside(backlog, segment, ASIDE)
        say_set_aside(log, run.node, unknown(recorded[run.node], run.number), backlog.folder)
    backlog.keep_only(left, last)
    gc.disable()  # nothing here becomes garbage, and looking for it takes a third of the time
    try:
        replayed = restore(left, policy, backlog, sync.now)
        remember(backlog.transactions(segments, policy.memo.max_transactions), policy.memo)
    finally:
        gc.enable()
    if replayed:
        log.warning("counts of an earlier run are replayed from the journal", records=replayed)
    for segment in left:
        if segment.torn:
            log.warning("a segment's torn end is cut", number=segment.number, size=segment.torn)
        if segment.damaged:
            kept = _keep_aside(backlog, segment, "damaged")
            log.error("a segment is damaged; what can be read of it counts", size=segment.damaged, kept_as=kept)


async def look(backlog: Backlog, sync: StoreSync, policy: Policy) -> None:
    """Add up in memory what the store does not have, and change nothing else. Raises StartError."""
    segments = await trio.to_thread.run_sync(_read_only, backlog)
    recorded = await sync.look({segment.node for segment in segments})
    left = [segment for segment in segments if segment.number > recorded.get(segment.node, 0)]
    restore(left, policy, backlog, sync.now)


def _read_only(backlog: Backlog) -> list[Recovered]:
    for left in range(LOOKS, 0, -1):
        try:
            return backlog.read()[0] if is_there(backlog.folder) else []
        except FileNotFoundError as error:  # a daemon has started, and stores what we were reading
            if left == 1:
                raise StartError(f"journal: {error}") from error
        except (JournalError, OSError) as error:
            raise StartError(f"journal: {error}") from error
    raise AssertionError


def _unknown(segments: Sequence[Recovered], recorded: Mapping[str, int]) -> list[Recovered]:
    """The last segment of each run of which the store records a later one, or no number.

    A later one is no proof that these are stored, nor that they are not: an older copy of the state directory may have
    been put back, a full disk may have kept the later segments in memory alone, or somebody has written the number.
    """
    last = {segment.node: segment for segment in segments}  # they are in order
    return [segment for segment in last.values() if recorded.get(segment.node, 0) > segment.number]


def _keep_aside(backlog: Backlog, segment: Recovered, why: str) -> Path:
    try:
        return backlog.keep_aside(segment, why)
    except OSError as error:
        raise StartError(f"journal: a segment cannot be kept aside: {error}") from error


def show_progress(done: int, of: int) -> None:
    """Show bytes read on the terminal, in a line that is overwritten."""
    end = "\n" if done == of else ""
    print(f"\rreplaying the journal: {done >> 10} of {of >> 10} KiB", end=end, file=sys.stderr, flush=True)


def restore(segments: Sequence[Recovered], policy: Policy, backlog: Backlog, now: int) -> int:
    """Put the segments back as closed ones, oldest first; the number of records.

    Their accounts are looked up in the store before they are decided on.
    """
    counters = _Counters(policy, now)
    known: dict[str, tuple[int, list[Counter]]] = {}
    for segment in segments:
        deltas: dict[Counter, int] = {}
        for end, times in records.ends(segment.records).items():
            recipients, windows = known.get(end) or known.setdefault(end, counters.charge(end))
            for counter in windows:
                deltas[counter] = min(deltas.get(counter, 0) + recipients * times, MAX_USED)
        for counter, recipients in deltas.items():
            counter.meter.charge_again(counter, recipients)
        backlog.restore(segment, deltas)
    return sum(len(segment.records) for segment in segments)


def remember(segments: Sequence[Recovered], memo: Memo) -> None:
    """Put the latest transactions of the segments into the memo: those of its last `max_transactions` records."""
    skip = sum(len(segment.records) for segment in segments) - memo.max_transactions
    for segment in segments:
        records.remember(segment.records[max(0, skip) :], memo)
        skip -= len(segment.records)


class _Counters:
    """A counter for each window in the journal; the latest of an account that may be one goes into its meter."""

    def __init__(self, policy: Policy, now: int) -> None:
        self._meters = {meter.limit.name: meter for meter in policy.all_meters}
        self._any_limit = policy.meters[0].limit
        self._policy = policy
        self._now = now
        self._by_window: dict[Window, Counter] = {}

    def charge(self, end: str) -> tuple[int, list[Counter]]:
        """The recipients of one charge and its counters, from the end of its record."""
        recipients, windows = records.windows(end)
        return recipients, [self._by_window.get(window) or self._make(window) for window in windows]

    def _make(self, window: Window) -> Counter:
        limit, expiry, key = window
        if limit not in self._meters:  # no longer configured: its counts are stored, but no request is decided by them
            period = Unknown(self._any_limit.period.zone)
            other = replace(self._any_limit, name=limit, period=period, quota=UNLIMITED, quotas={})
            self._meters[limit] = self._policy.add_removed(other)
        meter = self._meters[limit]
        counter = self._by_window[window] = meter.replay(key, expiry, self._now)
        return counter
