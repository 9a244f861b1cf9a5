"""Answers as a replay gives them, small and with known numbers."""

from collections import Counter
from collections.abc import Sequence
from random import Random

from ratelimitd.ctl.answers import (
    Day,
    LimitUse,
    NewAccount,
    OverAccount,
    RefusedAccount,
    Replayed,
    Report,
    ReportedAccount,
    ReportedDay,
    UnusedQuota,
)
from ratelimitd.ctl.distribution import Distribution

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</table></pre></style>",
    "a\u202egnp.exe@example.com",
    "\x1b[2J\x00\x07",
    "&lt;b&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 255,
    "שלום@example.com",
    "javascript:alert(1)",
    "\ud800",
)
"""What may stand where an account stands."""


def refused(keys: Sequence[str]) -> list[RefusedAccount]:
    """One account after the other, each refused one recipient less than the one before it."""
    return [
        RefusedAccount(key, len(keys) - i, f"2026-11-{1 + i % 28:02}T12:00:00+01:00", 1000 + i)
        for i, key in enumerate(keys)
    ]


def limit(name: str = "daily", uses: Sequence[int] = (1, 2, 2, 40), quota: int | None = 10, keys: Sequence[str] = (),
          **changed: object) -> LimitUse:  # fmt: skip
    """A limit of accounts that have sent once each, so many."""
    numbers = Counter(uses)
    found = Distribution(numbers, numbers)
    of = refused(keys)
    fields: dict[str, object] = {
        "limit": name, "period": "daily", "window": "fixed", "counts": "recipients", "enforced": True, "quota": quota,
        "accounts": len(uses), "recipients": sum(uses), "refused": of, "refused_accounts": len(of),
        "refused_recipients": sum(each.refused for each in of), "quantiles": found.quantiles(),
        "quota_for": found.quota_for(),
        "histogram": found.histogram(),
    }  # fmt: skip
    return LimitUse(**(fields | changed))  # type: ignore[arg-type]


def days(first: int = 1, count: int = 30) -> list[Day]:
    """Days of November."""
    return [
        Day(day=f"2026-11-{i:02}", messages=i, recipients=10 * i, refused_recipients=i % 3)
        for i in range(first, first + count)
    ]


def replayed(limits: Sequence[LimitUse] = (), **changed: object) -> Replayed:
    """An answer with these limits."""
    fields: dict[str, object] = {
        "from_": "2026-11-01T00:00:01+01:00", "to": "2026-11-30T23:59:59+01:00", "lines": 123_456, "unreadable": 2,
        "messages": 4321, "recipients": 98_765, "limits": [*(limits or [limit()])], "days": days(),
        "remarks": ["mail.log: 2 of 123,456 lines could not be read, the first:", "  7: x"],
    }  # fmt: skip
    return Replayed(**(fields | changed))  # type: ignore[arg-type]


def reported(keys: Sequence[str] = ("alice@example.com",), **changed: object) -> Report:
    """What a report gives of these accounts."""
    when = "2026-11-03T00:00:00+01:00"
    fields: dict[str, object] = {
        "from_": "2026-11-01T00:00:00+01:00", "to": "2026-11-30T12:00:00+01:00", "counted_by": "daily",
        "recipients": 98_765, "accounts": 432, "limits": [limit(keys=keys)], "remarks": ["quotas are those of now"],
        "days": [
            ReportedDay(day=f"2026-11-{i:02}", recipients=10 * i, accounts=i, refused_recipients=i % 3)
            for i in range(1, 31)
        ],
        "most": [
            ReportedAccount(key=key, quota=None if i else 100, recipients=4000 - i, windows=7, worst=900)
            for i, key in enumerate(keys)
        ],
        "over": [
            OverAccount(limit="daily", key=key, quota=100, worst=900, over=800, windows=2, first=when, last=when)
            for key in keys
        ],
        "new": [
            NewAccount(key=key, quota=100, recipients=950, windows=3, worst=900, first=when, at_once=333)
            for key in keys
        ],
        "unused_quotas": [
            UnusedQuota(limit="hour", of=of, source="database", quota=70, accounts=2, worst=3) for of in (None, *keys)
        ],
    }  # fmt: skip
    return Report(**(fields | changed))  # type: ignore[arg-type]


def month() -> Replayed:
    """What a server with 1,400 accounts may have in a month."""
    chance = Random(17)
    uses = sorted(max(1, int(chance.lognormvariate(2, 1.7))) for _ in range(1400))
    keys = [f"{name}@example.com" for name in ("newsletter", "info", "anna", "ben", "carla", *HOSTILE[:3])]
    limits = [
        limit("daily", uses, 1000, keys),
        limit("hour", uses[:-5], 300, keys[:2], period="1h", window="sliding", enforced=False),
        limit("message", uses[:-9], None, period="message"),
    ]
    return replayed(limits)
