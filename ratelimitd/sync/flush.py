"""The flush: what is charged goes from the backlog into the store, exactly once.

The open segment is closed; one transaction stores the deltas of the closed segments and the number of the last of
them; then the segments are forgotten and their files put away. A segment that the store has recorded is never stored
again, so a flush whose outcome is unknown is simply done again.
"""

import math
from functools import partial
from pathlib import Path

import trio

from ratelimitd.core.rows import Delta
from ratelimitd.errors import NotStored, RunUnknown, StartError, StoreReplaced
from ratelimitd.log.log import Log
from ratelimitd.state.backlog import ASIDE, Backlog, Unstored
from ratelimitd.state.directory import StateDir
from ratelimitd.stores.link import UNAVAILABLE, StoreLink
from ratelimitd.sync.loader import Loader
from ratelimitd.text import spell

FLUSH_TIMEOUT_S = 30.0
KEEP_TIMEOUT_S = 5.0
"""How long a flush waits for the disk to take refused records, which are in the log, too."""
FIELDS = Delta._fields[:6]
"""What is said of a delta that the database refuses."""


class Flush:
    """Stores what is pending: `flush`. `count`: flushes that were done, the last in `seconds`; `rejected`: records that
    the store refused; `without_place`: recipients of windows that end too far from those of other nodes."""

    def __init__(self, link: StoreLink, loader: Loader, backlog: Backlog, state: StateDir, log: Log) -> None:
        self.count = self.rejected = self.without_place = 0
        self.seconds = 0.0
        self.done_at = -math.inf  # on trio's clock: the last time that nothing was left to store
        self._link = link
        self._store = link.store
        self._loader = loader
        self._backlog = backlog
        self._state = state
        self._log = log
        self._journal_failed = self._stays = False
        self._replaced = False  # the database was, and what memory knows is not in the new one yet
        self._said_replaced = False  # since the last flush that was done

    def configure(self, history_days: int) -> None:
        """Take how long the store keeps windows that are over; at any time."""
        self._backlog.every_window = history_days > 0

    def begin(self, number: int) -> None:
        """Begin this run's first segment."""
        self._backlog.begin(number)
        self._note_journal()

    def divide(self) -> None:
        """Have what is pending stored in more transactions than one, where it is much. Never waits."""
        self._backlog.divide()

    async def flush(self) -> bool:
        """Store what is not stored yet; whether nothing is left of it. Never raises."""
        await self._backlog.rotate()
        self._note_journal()
        began = trio.current_time()
        try:
            await self._store_all()
        except UNAVAILABLE as error:
            self._link.failed(error)
            await self._condense()
            return False
        self._said_replaced = False
        self.done_at = trio.current_time()
        self.seconds = self.done_at - began
        self._loader.say_what_began_again(self._log)
        if self._link.succeeded():
            await self._loader.ask_again()
        return True

    async def _store_all(self) -> None:
        """Store every closed segment, also in a database that stands in the place of the one before."""
        try:
            with trio.fail_after(FLUSH_TIMEOUT_S):
                await self._link.open()
                if not self._replaced:
                    await self._store_runs()
        except StoreReplaced as error:
            if not self._said_replaced:
                self._log.warning("the database was replaced; what is in memory is stored in it again", reason=error)
            self._replaced = self._said_replaced = True
        if self._replaced:
            await self._put_back()
            with trio.fail_after(FLUSH_TIMEOUT_S):
                await self._store_runs()

    async def _store_runs(self) -> None:
        await self._store.check()
        if not self._link.up:
            await self._store.recorded(self._backlog.node)
        completed = await self._loader.put_back.complete(FLUSH_TIMEOUT_S)
        await self._loader.take_over([*completed.rows.values()], included=completed.included)
        while unstored := self._backlog.next_run():
            await self._store_run(unstored)

    async def _put_back(self) -> None:
        """Store what memory knows in a database that lacks some of it, and last that it has it."""
        with trio.fail_after(FLUSH_TIMEOUT_S):
            await self._link.reopen()
        await self._loader.put_back.everything(FLUSH_TIMEOUT_S)
        with trio.fail_after(FLUSH_TIMEOUT_S):
            await self._store.flush(self._backlog.node, self._backlog.recorded, lambda _: ())
        self._replaced = False

    @property
    def unsafe(self) -> bool:
        """Whether something is neither stored nor in the journal, as far as the last flush has found out."""
        return bool(self._backlog.incomplete)

    @property
    def in_memory_only(self) -> bool:
        """Whether a process that ends now may lose something."""
        return self.unsafe or self._backlog.error is not None

    async def close(self) -> bool:
        """End the journal; what is left in it is stored by the next run. Whether nothing is lost."""
        await self._condense()
        lost = await trio.to_thread.run_sync(self._backlog.unwritten)
        if lost:
            self._log.error(
                "stopping with counts that are lost: neither the database nor the journal could be written",
                recipients=sum(lost.values()),
                accounts=len(lost),
            )
        elif accounts := self._backlog.accounts:
            self._log.warning("stopping with counts that are in the journal only", accounts=accounts)
        self._backlog.close()
        return not lost

    async def _store_run(self, unstored: Unstored) -> None:
        """Store segments of one run in one transaction; then they are forgotten, and put away."""
        deltas = partial(self._backlog.deltas, unstored)
        try:
            stored = await self._store.flush(unstored.node, unstored.last, deltas)
        except NotStored:
            self._backlog.not_stored()
            raise
        except RunUnknown as error:
            await self._set_run_aside(unstored, error)
            return
        self._backlog.stored(unstored)
        self.count += 1
        await self._set_aside(stored.rejected)
        completed = await self._loader.put_back.complete(FLUSH_TIMEOUT_S)
        rows = completed.among(stored.rows) if completed.accounts else stored.rows
        if lost := await self._loader.take_over(rows, unstored.segments):
            self.without_place += lost
            self._log.info("the rows have later windows, of other nodes: counts found no place", recipients=lost)
        try:
            await self._backlog.put_away(unstored)
            self._stays = False
        except OSError as error:  # it is recorded as stored, and will be put away later
            if not self._stays:
                self._log.warning("a stored segment cannot be put away", folder=self._backlog.folder, reason=error)
            self._stays = True

    async def _set_run_aside(self, unstored: Unstored, error: RunUnknown) -> None:
        """Forget segments of an earlier run, for nobody knows which of them are stored; their files are kept."""
        try:
            await self._backlog.set_aside(unstored)
        except OSError as failed:
            self._log.warning("segments cannot be kept aside; they stay", folder=self._backlog.folder, reason=failed)
        await self._loader.ask_about(unstored.segments)
        say_set_aside(self._log, unstored.node, error, self._backlog.folder)

    async def _condense(self) -> None:
        try:
            await self._backlog.condense()
        except OSError as error:
            self._log.debug("the journal cannot be rewritten", reason=error)

    def _note_journal(self) -> None:
        """Log that the journal cannot be written, and that it can again: a line each."""
        error = self._backlog.error
        if error is not None and not self._journal_failed:
            self._log.error(
                "the journal cannot be written; counting in memory until it can",
                folder=self._backlog.folder,
                reason=error,
            )
        elif error is None and self._journal_failed:
            self._log.warning("the journal can be written again", unwritten=self._backlog.failures)
        self._journal_failed = error is not None

    async def _set_aside(self, rejected: list[tuple[Delta, str]]) -> None:
        for delta, reason in rejected:
            self.rejected += 1
            fields = dict(zip(FIELDS, delta, strict=False))
            self._log.error("the database refuses a record; it is set aside", **fields, reason=reason)
        if rejected:
            lines = [
                "\t".join(spell(str(field)) for field in (*delta[: len(FIELDS)], reason)) for delta, reason in rejected
            ]
            append = partial(self._state.append, "rejected.tsv", "\n".join(lines) + "\n")
            why: object = "no answer in time"
            with trio.move_on_after(KEEP_TIMEOUT_S):
                try:
                    await trio.to_thread.run_sync(append, abandon_on_cancel=True)
                    return
                except StartError as error:
                    why = error
            self._log.error("a refused record cannot be kept", reason=why)


def say_set_aside(log: Log, run: str, reason: object, folder: Path) -> None:
    """Log that an earlier run's segments do not count: one line."""
    log.error("segments of an earlier run are set aside: nobody knows which of them are stored",
              run=run, reason=reason, kept_as=folder / f"{run[:8]}-*.{ASIDE}")  # fmt: skip
