"""The files of a log in the order of time, whatever the order they are named in: of hosts, of days, or both.

A file is opened when its time has come and closed at its end: a year of daily files is no more than two at a time.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

from msgspec.structs import astuple

from ratelimitd.ctl.replay.lines import Decided, Event
from ratelimitd.ctl.replay.reader import Reader

_KEPT_S = 60
"""Lines of one second are so little apart in any file."""
_Begun = tuple[int, int, Event, Iterator[tuple[int, Event]]]


def merged(readers: Sequence[Reader]) -> Iterator[tuple[int, Event]]:
    """The events of all files, each with its instant.

    What a daemon decided counts once, where several files have the line: syslog may write mail.log and mail.info.
    """
    said = _Said()
    waiting = sorted(((reader.begins(), i) for i, reader in enumerate(readers)), reverse=True)
    begun: list[_Begun] = []  # the next event of each file that is read
    while waiting or begun:
        while waiting and (not begun or waiting[-1][0] <= begun[0][0]):
            _, place = waiting.pop()
            events = readers[place].events()
            for instant, event in events:
                heappush(begun, (instant, place, event, events))
                break
        if begun:
            instant, place, event, events = begun[0]
            if len(readers) == 1 or type(event) is not Decided or said.is_new(instant, event, place):
                yield instant, event
            following = next(events, None)
            if following is None:
                heappop(begun)
            else:
                heapreplace(begun, (following[0], place, following[1], events))


class _Said:
    """What daemons decided recently, in each file: as often as one file has it, it was decided."""

    def __init__(self) -> None:
        self._forgotten = 0
        self._counts: dict[tuple[int, tuple[object, ...]], dict[tuple[int, bytes], int]] = {}

    def is_new(self, instant: int, event: Decided, place: int) -> bool:
        """Whether no other file has told of it. A daemon's own log file does not say which host it is of."""
        if instant > self._forgotten + 2 * _KEPT_S:
            self._forgotten = instant - _KEPT_S
            self._counts = {said: files for said, files in self._counts.items() if said[0] >= self._forgotten}
        host, _, queue_id = event.login.mail.rpartition(b" ")
        said = queue_id, *astuple(event.login)[1:], *astuple(event)[1:]
        files = self._counts.setdefault((instant, said), {})
        others = [
            n for (other, its_host), n in files.items() if other != place and (its_host in (host, b"") or not host)
        ]
        files[place, host] = own = files.get((place, host), 0) + 1
        return own > max(others, default=0)
