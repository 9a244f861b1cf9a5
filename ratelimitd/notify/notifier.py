"""Delivers notices: from the queue that decisions append to, over the ledger on disk, to commands and webhooks.

A notice is on disk before it is delivered, and its end is after: a daemon that is killed in between tells it again,
under the same id, and nothing else is ever told twice. Every delivery is a task of its own, bounded in number, time
and attempts, so that a dead target is in nobody's way.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import trio

from ratelimitd.errors import StartError
from ratelimitd.log.log import Log
from ratelimitd.notify.configured import Notify
from ratelimitd.notify.ledger import Ledger, Open
from ratelimitd.notify.notices import Notice, Watch
from ratelimitd.notify.targets import DeliveryFailed, Target, encode, make
from ratelimitd.state.directory import StateDir

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STOP_S = 2.0
"""How long a stop waits for deliveries that are under way; they are told again at the next start."""
COMPACT_S = 3600.0


class Notifier:
    """All targets; `delivered`, `failed` (given up) and `dropped` count notices per target."""

    def __init__(self, state: StateDir, log: Log, clock: Callable[[], float] = time.time) -> None:
        self.delivered = self.failed = self.dropped = 0
        self._log = log
        self._clock = clock
        self._ledger = Ledger(state)
        self._ledger_failed = False
        self._lock = trio.Lock()  # one thread at a time works on the ledger
        self._targets: dict[str, Target] = {}
        self._over: list[tuple[str, str]] = []
        self._wake = trio.Event()
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self.watch = Watch(0, lambda: self._wake.set())

    @property
    def waiting(self) -> int:
        """Deliveries that are not over."""
        return sum(target.waiting for target in self._targets.values())

    def configure(self, notify: Sequence[Notify]) -> None:
        """Take the targets of a configuration; at any time."""
        targets = {entry.id: make(entry) for entry in notify}
        at: dict[str, list[int]] = {}
        for entry in notify:
            for limit in entry.limits:
                at.setdefault(limit, []).extend(entry.at)
        self._targets = targets
        self.watch.max_waiting = max([entry.max_waiting for entry in notify], default=0)
        self.watch.configure(at)

    async def begin(self) -> None:
        """Read what was told by an earlier run. Before `run` and the first decision; never raises."""
        try:
            self.watch.told = await trio.to_thread.run_sync(self._ledger.load)
        except OSError as error:
            self._note_failure(error)

    async def run(self) -> None:
        """Deliver until `stop`."""
        try:
            async with trio.open_nursery() as nursery:
                for notice_id, entry in list(self._ledger.open.items()):
                    self._start(nursery, notice_id, entry)
                nursery.start_soon(self._keep_small)
                while not self._stop.is_set():
                    await self._wake.wait()
                    self._wake = trio.Event()
                    for notice_id, entry in (await self._record()).items():
                        self._start(nursery, notice_id, entry)
                nursery.cancel_scope.deadline = trio.current_time() + STOP_S
            await self._record()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Begin no more deliveries, wait a little for those under way. The rest is told at the next start."""
        self._stop.set()
        self._wake.set()
        await self._stopped.wait()

    # -- the ledger ------------------------------------------------------------------------------------------------

    async def _record(self) -> dict[str, Open]:
        """Write what is new and what is over; the new ones."""
        async with self._lock:
            queue = self.watch.queue
            new = {notice.id: self._open(notice) for notice in [queue.popleft() for _ in range(len(queue))]}
            over, self._over = self._over, []
            if new or over:
                try:
                    await trio.to_thread.run_sync(self._ledger.begin, new, over)
                    self._ledger_failed = False
                except StartError as error:
                    self._note_failure(error)
        return new

    def _open(self, notice: Notice) -> Open:
        to = {
            target_id
            for target_id, target in self._targets.items()
            if notice.limit in target.notify.limits and notice.percent in target.notify.at
        }
        return Open(notice.expiry, {**asdict(notice), "time": int(self._clock())}, to)

    async def _keep_small(self) -> None:
        while not self._stop.is_set():
            await self._compact()
            with trio.move_on_after(COMPACT_S):
                await self._stop.wait()

    async def _compact(self) -> None:
        async with self._lock:
            self.watch.forget_ended(int(self._clock()))
            queued = {notice.id for notice in self.watch.queue}
            told = {notice_id: expiry for notice_id, expiry in self.watch.told.items() if notice_id not in queued}
            try:
                await trio.to_thread.run_sync(self._ledger.compact, told)
            except StartError as error:
                self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        if not self._ledger_failed:
            self._log.error("notices cannot be remembered; a restart may tell them again", reason=error)
        self._ledger_failed = True

    # -- deliveries ------------------------------------------------------------------------------------------------

    def _start(self, nursery: trio.Nursery, notice_id: str, entry: Open) -> None:
        body = encode(entry.notice)
        for target_id in sorted(entry.to):
            target = self._targets.get(target_id)
            if target is None:  # configured no more
                self._end(notice_id, target_id)
            elif target.waiting >= target.notify.max_waiting:
                self.dropped += 1
                self._log.warning("a notice is dropped: too many wait", target=target.name, **_told(entry))
                self._end(notice_id, target_id)
            else:
                target.waiting += 1
                nursery.start_soon(self._deliver, target, target_id, notice_id, entry, body)

    def _end(self, notice_id: str, target_id: str) -> None:
        self._over.append((notice_id, target_id))
        self._wake.set()

    async def _deliver(self, target: Target, target_id: str, notice_id: str, entry: Open, body: bytes) -> None:
        try:
            if await self._attempts(target, notice_id, entry, body):
                self._end(notice_id, target_id)
        finally:
            target.waiting -= 1

    async def _attempts(self, target: Target, notice_id: str, entry: Open, body: bytes) -> bool:
        """Whether the delivery is over; else the daemon is stopping."""
        pause_s = FIRST_PAUSE_S
        for left in range(target.notify.retries, -1, -1):
            async with target.slots:
                if self._stop.is_set():
                    return False
                failure = await self._attempt(target, notice_id, body)
            if failure is None:
                self.delivered += 1
                return True
            if failure.for_good or not left:
                break
            self._log.debug("a notice is tried again", target=target.name, reason=failure, **_told(entry))
            with trio.move_on_after(pause_s):
                await self._stop.wait()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self.failed += 1
        self._log.warning("a notice cannot be delivered", target=target.name, reason=failure, **_told(entry))
        return True

    async def _attempt(self, target: Target, notice_id: str, body: bytes) -> DeliveryFailed | None:
        try:
            with trio.fail_after(target.notify.timeout_s):
                await target.deliver(notice_id, body)
        except DeliveryFailed as failure:
            return failure
        except trio.TooSlowError:
            return DeliveryFailed("no answer in time")
        except Exception as error:  # a fault in a library must not end the service
            return DeliveryFailed(repr(error))
        return None


def _told(entry: Open) -> dict[str, object]:
    return {name: entry.notice.get(name) for name in ("limit", "key", "percent")}
