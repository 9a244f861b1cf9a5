"""The files of a log in the order of time, whatever the order they are named in: of hosts, of days, or both.

A file is opened when its time has come and closed at its end: a year of daily files is no more than two at a time.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

from ratelimitd.ctl.replay.lines import Event
from ratelimitd.ctl.replay.reader import Reader

_Begun = tuple[int, int, Event, Iterator[tuple[int, Event]]]


def merged(readers: Sequence[Reader]) -> Iterator[tuple[int, Event]]:
    """The events of all files, each with its instant."""
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
            yield instant, event
            following = next(events, None)
            if following is None:
                heappop(begun)
            else:
                heapreplace(begun, (following[0], place, following[1], events))
