"""The daemon's link to its store: whether it is up; one log line when it becomes unavailable, one when it is back."""

import trio

from ratelimitd.errors import RecordRefused, StoreError, StoreUnsuitable
from ratelimitd.log.log import Log
from ratelimitd.stores import Cursor, Store

UNAVAILABLE = (StoreError, trio.TooSlowError)
"""What a store that is unavailable raises."""


class StoreLink:
    """A store and its health: `up`: the last operation succeeded; `failures` counts those that did not.

    `failure`: why it is unavailable; "": it is not.
    """

    def __init__(self, store: Store, log: Log) -> None:
        self.store = store
        self.up = False
        self.failures = 0
        self.failure = ""
        self.cursor: Cursor | None = None  # of the changes that were applied last
        self._log = log
        self._opened = False
        self._waits_for_somebody = False  # since it became unavailable it was said that it does

    @property
    def name(self) -> str:
        """The store's, for people."""
        return self.store.name

    async def open(self) -> None:
        """Open the store where it is not open yet. Raises StoreError."""
        if not self._opened:
            await self.store.open()
            self._opened = True
            await self.store.settle_default(change=True)
            self.say()
            if self.cursor is None:
                self.cursor = (await self.store.changes(None, 0)).cursor

    async def reopen(self) -> None:
        """Open the store again, for another database may stand in its place. Raises StoreError."""
        self._opened = False
        await self.store.close()
        await self.open()

    async def close(self) -> None:
        """Close the store; never raises."""
        await self.store.close()

    def say(self) -> None:
        """Log what the store has to say."""
        for remark in self.store.remarks.take():
            say = self._log.error if remark.must else self._log.warning
            say(remark.event, **dict(remark.fields))

    def say_once(self, event: str, **fields: object) -> None:
        """Log a warning, unless it was logged; no more of them than a log can bear."""
        self.store.remarks.add(event, **{name: str(value) for name, value in fields.items()})
        self.say()

    def succeeded(self) -> bool:
        """Note that the store answered; whether it had been unavailable."""
        was_unavailable = not self.up
        self.up = True
        if self.failure:
            self.failure = ""
            self._log.warning("the store is available again", store=self.store.name)
        return was_unavailable

    def failed(self, error: BaseException) -> None:
        """Note that an operation failed; where it is one row's fault, the store is as available as before.

        It is said once, and once more where it turns out later that somebody has to change something.
        """
        self.failures += 1
        if isinstance(error, RecordRefused):
            self.say_once("the database refuses a change; everything else goes on", reason=error)
            return
        self.up = False
        waits_for_somebody = isinstance(error, StoreUnsuitable)
        is_said = bool(self.failure) and (self._waits_for_somebody or not waits_for_somebody)
        self.failure = "no answer in time" if isinstance(error, trio.TooSlowError) else str(error) or "unknown"
        if not is_said:
            self._waits_for_somebody = waits_for_somebody
            end = "somebody has changed what is wrong" if waits_for_somebody else "it is back"
            text = f"the store is unavailable; counting in memory and journal until {end}"
            self._log.error(text, reason=self.failure)
