"""A log sink that keeps its lines."""

from collections.abc import Iterable

import trio

from ratelimitd.log.sinks import Entry


class Lines:
    """Every line with its level."""

    on_stderr = False
    scribe = None

    def __init__(self) -> None:
        self.dropped = 0
        self.entries: list[Entry] = []

    @property
    def texts(self) -> list[str]:
        """The lines alone."""
        return [text for _, text in self.entries]

    def write(self, entries: Iterable[Entry]) -> None:
        self.entries += entries

    async def drain(self) -> None:
        await trio.sleep_forever()

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass
