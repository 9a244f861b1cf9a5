"""Delivers notices: from the queue that decisions append to, through the ledger on disk, to commands and webhooks.

A notice is recorded on disk before it is delivered, and its end afterwards: a daemon that is killed in between sends it
again under the same id, and nothing else is ever sent twice. Every delivery is a task of its own, bounded in number,
time and attempts, so that a dead target holds up no other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import trio

from ratelimitd.errors import StartError
from ratelimitd.log.quiet import QuietLog
from ratelimitd.notify.configured import Notify
from ratelimitd.notify.ledger import Ledger, Unsent
from ratelimitd.notify.notices import Notice, Watch
from ratelimitd.notify.target import DeliveryFailed, Target
from ratelimitd.notify.targets import encode, make
from ratelimitd.state.directory import StateDir

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STOP_S = 2.0
"""How long a stop waits for deliveries that are under way; those not over by then are sent again at the next start."""
COMPACT_S = 3600.0


class Delivery(NamedTuple):
    """One notice for one target; `about` is what the log says of the notice."""

    target: Target
    target_id: str
    notice_id: str
    body: bytes
    about: dict[str, object]

    async def attempt(self) -> DeliveryFailed | None:
        """Try once, within the target's time; the failure, or None."""
        try:
            with trio.fail_after(self.target.notify.timeout_s):
                await self.target.deliver(self.notice_id, self.body)
        except DeliveryFailed as failure:
            return failure
        except trio.TooSlowError:
            return DeliveryFailed("no answer in time")
        except Exception as error:  # a fault in a library must not end the service
            return DeliveryFailed(repr(error))
        return None


class Notifier:
    """All targets. `delivered`, `failed` (given up) and `dropped` count deliveries: one for each notice and target."""

    def __init__(
        self, state: StateDir, quiet: QuietLog, notify: Sequence[Notify], clock: Callable[[], float] = time.time
    ) -> None:
        self.delivered = self.failed = self.dropped = 0
        self._log = quiet.log
        self._quiet = quiet  # what accounts can cause as often as they send
        self._clock = clock
        self._ledger = Ledger(state)
        self._ledger_failed = False
        self._lock = trio.Lock()  # one thread at a time works on the ledger
        self._targets: dict[str, Target] = {}
        self._over: list[tuple[str, str, trio.Event]] = []
        self._wake = trio.Event()
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self.watch = Watch(lambda: self._wake.set())
        self.configure(notify)

    @property
    def waiting(self) -> int:
        """How many deliveries are not over."""
        return sum(target.waiting for target in self._targets.values())

    def configure(self, notify: Sequence[Notify]) -> None:
        """Take the targets of a configuration; may be called at any time."""
        percents: dict[str, list[int]] = {}
        for entry in notify:
            for limit in entry.limits:
                percents.setdefault(limit, []).extend(entry.at)
        self._targets = {entry.id: make(entry) for entry in notify}
        self.watch.configure(percents, max([entry.max_waiting for entry in notify], default=0))

    async def begin(self) -> None:
        """Read the notices of earlier runs. Before `run` and the first decision; never raises."""
        try:
            self.watch.restore(await trio.to_thread.run_sync(self._ledger.load))
            if self._ledger.foreign:
                self._log.warning("lines of notices.jsonl are not understood, and left out", lines=self._ledger.foreign)
        except OSError as error:
            self._note_failure(error)

    async def run(self) -> None:
        """Deliver until `stop`."""
        try:
            async with trio.open_nursery() as nursery:
                for notice_id, entry in list(self._ledger.unsent.items()):
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
        """Begin no more deliveries, wait at most STOP_S for those under way. The rest is sent at the next start."""
        self._stop.set()
        self._wake.set()
        for *_, recorded in self._over:
            recorded.set()
        await self._stopped.wait()

    # -- the ledger ------------------------------------------------------------------------------------------------

    async def _record(self) -> dict[str, Unsent]:
        """Record which notices are new and which are over; the new ones."""
        async with self._lock:
            queue = self.watch.queue
            new = {notice.id: self._unsent(notice) for notice in [queue.popleft() for _ in range(len(queue))]}
            over, self._over = self._over, []
            if new or over:
                ended = [(notice_id, target_id) for notice_id, target_id, _ in over]
                try:
                    await trio.to_thread.run_sync(self._ledger.record, new, ended)
                    self._ledger_failed = False
                except StartError as error:
                    self._note_failure(error)
            for *_, recorded in over:
                recorded.set()
        return new

    def _unsent(self, notice: Notice) -> Unsent:
        to = {
            target_id
            for target_id, target in self._targets.items()
            if notice.limit in target.notify.limits and notice.percent in target.notify.at
        }
        return Unsent(notice.expiry, {**asdict(notice), "time": int(self._clock())}, to)

    async def _keep_small(self) -> None:
        while not self._stop.is_set():
            await self._compact()
            with trio.move_on_after(COMPACT_S):
                await self._stop.wait()

    async def _compact(self) -> None:
        async with self._lock:
            self.watch.forget_ended(int(self._clock()))
            queued = {notice.id for notice in self.watch.queue}
            recorded = {key: expiry for key, expiry in self.watch.notified.items() if key not in queued}
            try:
                await trio.to_thread.run_sync(self._ledger.compact, recorded)
            except StartError as error:
                self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        if not self._ledger_failed:
            self._log.error("notices cannot be recorded; a restart may send them again", reason=error)
        self._ledger_failed = True

    # -- deliveries ------------------------------------------------------------------------------------------------

    def _start(self, nursery: trio.Nursery, notice_id: str, entry: Unsent) -> None:
        body = encode(entry.notice)
        about = {name: entry.notice.get(name) for name in ("limit", "key", "percent")}
        for target_id in sorted(entry.to):
            target = self._targets.get(target_id)
            if target is None:  # no longer configured
                self._end(notice_id, target_id)
            elif target.waiting >= target.notify.max_waiting:
                self.dropped += 1
                self._quiet.warning("a notice is dropped: too many are waiting", target=target.name, **about)
                self._end(notice_id, target_id)
            else:
                target.waiting += 1
                nursery.start_soon(self._deliver, Delivery(target, target_id, notice_id, body, about))

    def _end(self, notice_id: str, target_id: str) -> trio.Event:
        """Have it recorded that a delivery is over; the event is set once it is, or when the daemon stops."""
        recorded = trio.Event()
        if self._stop.is_set():
            recorded.set()
        self._over.append((notice_id, target_id, recorded))
        self._wake.set()
        return recorded

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempts(delivery)
        finally:
            delivery.target.waiting -= 1

    async def _attempts(self, delivery: Delivery) -> None:
        """Deliver, or give up, and have that recorded; unless the daemon is stopping."""
        target, about = delivery.target, delivery.about
        pause_s = FIRST_PAUSE_S
        for left in range(target.notify.retries, -1, -1):
            async with target.slots:
                if self._stop.is_set():
                    return
                failure = await delivery.attempt()
                if failure is None:
                    self.delivered += 1
                    # A kill repeats what is not recorded as sent: no more than there are slots.
                    await self._end(delivery.notice_id, delivery.target_id).wait()
                    return
            if failure.for_good or not left:
                break
            self._log.debug("a notice is tried again", target=target.name, reason=failure, **about)
            with trio.move_on_after(pause_s):
                await self._stop.wait()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self.failed += 1
        self._quiet.warning("a notice cannot be delivered", target=target.name, reason=failure, **about)
        self._end(delivery.notice_id, delivery.target_id)
