"""How a running daemon is doing, and what it has seen, for `ratelimitctl status` and `doctor`."""

import os
import time
from array import array
from collections import Counter, deque
from heapq import nlargest
from math import inf
from operator import itemgetter
from pathlib import Path

import trio

from ratelimitd import __version__
from ratelimitd.control.answers import Evidence, JournalStatus, NotStored, RunningStatus, StoreStatus
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy
from ratelimitd.log.log import Log
from ratelimitd.logins import plain
from ratelimitd.server.pump import Pump
from ratelimitd.state.journal import Journal
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import walk

SAMPLES = 11
"""Eleven samples span ten seconds: the rate is that of the last ten."""
MAX_PAIRS = 20
BARE = "alice"
"""A login without a domain."""
FEW_DOMAINS = 5
"""A user may have mail in so many domains under one name."""
BUCKETS = 1 << 20


class DaemonStatus:
    """Looks at the parts of a daemon. It may be made before trio runs."""

    def __init__(self, file: Path, policy: Policy, pump: Pump, sync: StoreSync, journal: Journal, log: Log) -> None:
        self.file = file
        self._policy = policy
        self._pump = pump
        self._sync = sync
        self._journal = journal
        self._log = log
        self._started = time.monotonic()
        self._started_at = time.time()
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self) -> None:
        """Note the number of requests; to be called every second."""
        self._samples.append((time.monotonic(), self._pump.requests))

    def rate(self) -> float:
        """Requests per second, recently."""
        now = time.monotonic()
        since, requests = self._samples[0] if self._samples else (self._started, 0)
        return (self._pump.requests - requests) / (now - since) if now > since else 0.0

    def answer(self) -> RunningStatus:
        """Everything in numbers."""
        policy, memo, pump, connections = self._policy, self._policy.memo, self._pump, self._pump.connections
        return RunningStatus(
            version=__version__,
            pid=os.getpid(),
            started=int(self._started_at),
            uptime_s=round(time.monotonic() - self._started, 1),
            config=str(self.file),
            listen=self._pump.connections.listeners.addresses,
            limits=[meter.limit.name for meter in policy.meters],
            store=self._store(),
            journal=self._journal_files(),
            accounts={meter.limit.name: len(meter.counters) for meter in policy.kept},
            not_stored=not_stored(policy.pending),
            requests=pump.requests,
            per_second=round(self.rate(), 1),
            decisions=self._decisions(),
            connections=len(connections.open),
            parked=len(pump.parked),
            transactions=len(memo),
            evicted=self._sync.evicted,
            lookups_held=self._sync.held,
            transactions_forgotten=memo.forgotten,
            without_login=policy.tally.without_login,
            log_lines_dropped=self._log.dropped,
            log_lines_left_out=connections.quiet.left_out,
            timeouts=connections.timeouts,
            too_long=pump.too_long,
            not_postfix=pump.not_postfix,
            refused_peers=connections.refused_peers,
            accept_pauses=connections.pauses,
            errors=pump.errors,
        )

    def _decisions(self) -> dict[str, int]:
        """By status, over all limits."""
        found: dict[str, int] = {}
        for meter in self._policy.meters:
            for status, number in meter.decisions.items():
                found[status] = found.get(status, 0) + number
        return found

    def _store(self) -> StoreStatus:
        link, flusher = self._sync.link, self._sync.flusher
        ago = trio.current_time() - flusher.done_at
        return StoreStatus(
            name=link.name,
            up=link.up,
            failures=link.failures,
            flushes=flusher.count,
            last_flush_s_ago=round(ago, 1) if ago < inf else None,
            last_flush_ms=round(flusher.seconds * 1000, 1),
            rejected=flusher.rejected,
        )

    def _journal_files(self) -> JournalStatus:
        journal = self._journal
        sizes: dict[str, int] = {}
        try:
            with os.scandir(journal.folder) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".segment")}
        except OSError:  # the next write to the journal fails too, and sets `error`
            pass
        if journal.ahead is not None:
            sizes.pop(f"{journal.ahead.number}.segment", None)
        if (name := f"{journal.number}.segment") in sizes:  # behind what it holds there may be zeros
            sizes[name] = journal.size
        error = journal.error.strerror if journal.error is not None else None
        return JournalStatus(segments=len(sizes), bytes=sum(sizes.values()), unwritten=journal.failures, error=error)

    async def evidence(self) -> Evidence:
        """What points to a wrong configuration of Postfix; ctl/doctor judges it."""
        tally = self._policy.tally
        return Evidence(
            pid=os.getpid(),
            listen=self._pump.connections.listeners.addresses,
            requests=self._pump.requests,
            decisions=sum(self._decisions().values()),
            other_states=tally.other_states,
            without_login=tally.without_login,
            without_key=tally.without_key,
            bare_and_qualified=await self._bare_and_qualified(),
            many_domains=await self._many_domains(),
            other_windows=self._sync.zones.differing,
            store_unavailable=self._store_unavailable(),
            spellings=await self._spellings(),
        )

    def _store_unavailable(self) -> str:
        """Which store is unavailable, and why; "": it is available, or nothing was asked of it yet."""
        link = self._sync.link
        return f"{link.name}: {link.failure}" if link.failure else ""

    async def _bare_and_qualified(self) -> list[tuple[str, str]]:
        """Pairs of keys such as `alice` and `alice@example.com` under one limit, at most MAX_PAIRS of them.

        Only those that logins still have: what was counted before `default_domain` was set is not counted again.
        """
        rules = self._pump.connections.rules
        pairs: dict[tuple[str, str], None] = {}
        for meter in self._policy.meters if rules.login(BARE) == BARE else ():
            if not meter.limit.of_login:
                continue
            async for keys in walk(list(meter.counters)):
                for key in keys:
                    bare, at, _ = key.partition("@")
                    if at and bare in meter.counters and len(pairs) < MAX_PAIRS:
                        pairs[bare, key] = None
        return list(pairs)

    async def _spellings(self) -> list[tuple[str, str]]:
        """Pairs of keys under one limit that differ in accents or invisible characters alone, at most MAX_PAIRS."""
        pairs: dict[tuple[str, str], None] = {}
        for meter in () if self._pump.connections.rules.ascii_only else self._policy.meters:
            first: dict[str, str] = {}
            async for keys in walk(list(meter.counters) if meter.limit.of_login else []):
                for key in keys:
                    if not key.isascii() or not key.isprintable():
                        name = plain(key)
                        other = name if name in meter.counters else first.setdefault(name, key)
                        if other != key and len(pairs) < MAX_PAIRS:
                            pairs[other, key] = None
        return list(pairs)

    async def _many_domains(self) -> list[tuple[str, int]]:
        """Local parts of logins of more than FEW_DOMAINS domains, and of how many; at most MAX_PAIRS, most first.

        There may be a million accounts: only local parts whose bucket is that full are counted by name.
        """
        found: dict[str, int] = {}
        for meter in self._policy.meters:
            if not meter.limit.of_login:
                continue
            keys, buckets = list(meter.counters), array("I", bytes(4 * BUCKETS))
            async for some in walk(keys):
                for key in some:
                    buckets[hash(key.partition("@")[0]) % BUCKETS] += "@" in key
            named: Counter[str] = Counter()
            async for some in walk(keys):
                names = [local for local, at, _ in (key.partition("@") for key in some) if at]
                named.update(name for name in names if buckets[hash(name) % BUCKETS] > FEW_DOMAINS)
            for local, number in named.items():
                if number > FEW_DOMAINS:
                    found[local] = max(number, found.get(local, 0))
        return nlargest(MAX_PAIRS, found.items(), key=itemgetter(1))


def not_stored(pending: Pending) -> NotStored:
    """How much is not in the store yet."""
    counts = set[object]().union(*(segment.deltas for segment in (*pending.closed, pending.open)))
    return NotStored(accounts=len(counts), recipients=pending.recipients)
