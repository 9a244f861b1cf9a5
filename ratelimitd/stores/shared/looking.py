"""A server's database that is only looked at: what looking.py does for a file."""

from collections.abc import Collection

from ratelimitd.stores.shared.store import SharedStore


class SharedLook(SharedStore):
    """A database, for reading alone; a store of the server's own kind is its other base."""

    async def open(self) -> None:
        """See whether there is a history; tables that are missing stay missing."""
        self._history.exists = f"{self._names.table}_history" in await self._servers.attempt(self._tables)

    async def forget(self, but: Collection[str], now: int) -> None:
        """Nothing: a daemon forgets runs of long ago."""

    async def settle_default(self, *, change: bool) -> None:
        """Nothing: a start does."""
