"""What accounts use, counted in buckets that grow with it: ten for each power of ten, so a picture of any log is small.

The upper ends are numbers that one would choose as a quota: 1 2 3 4 5 6 8 10 12 16 20 25 32 40 50 63 80 100 125 ...
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import count, takewhile

from ratelimitd.ctl.answers import Bucket

_MANTISSAS = (100, 125, 160, 200, 250, 320, 400, 500, 630, 800)


def ends() -> Iterator[int]:
    """The upper ends of all buckets, without an end."""
    before = 0
    for power in count():
        for mantissa in _MANTISSAS:
            end = mantissa * 10**power // 100
            if end > before:
                yield end
                before = end


def histogram(windows: Mapping[int, int], accounts: Mapping[int, int]) -> list[Bucket]:
    """The buckets that are not empty: how many windows had each use, and of how many accounts it was the greatest."""
    greatest = max([*windows, *accounts], default=0)
    tops = [*takewhile(lambda end: end < greatest, ends())]
    tops.append(next(end for end in ends() if end >= greatest))
    in_windows, in_accounts = [0] * len(tops), [0] * len(tops)
    for used, number in windows.items():
        in_windows[bisect_left(tops, used)] += number
    for used, number in accounts.items():
        in_accounts[bisect_left(tops, used)] += number
    bottoms = [1, *[end + 1 for end in tops]]
    found = zip(bottoms, tops, in_windows, in_accounts, strict=False)
    return [Bucket(from_=bottom, to=top, windows=w, accounts=a) for bottom, top, w, a in found if w or a]
