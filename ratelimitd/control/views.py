"""Counters as an administrator sees them: where a quota comes from, in words, and what follows it."""

from ratelimitd.control.answers import AccountView
from ratelimitd.core.counters import Counter, Meter
from ratelimitd.core.limits import UNLIMITED
from ratelimitd.core.pending import Pending
from ratelimitd.core.quotas import Held, Source
from ratelimitd.core.rows import Row
from ratelimitd.core.standing import admits_again

NOW = "room now"
"""One more recipient is admitted under a sliding limit."""


def view(counter: Counter, pending: Pending, *, seen: bool = True) -> AccountView:
    """An account under one limit; not `seen`: it is what its first mail would get."""
    limit, unlimited = counter.limit, counter.quota == UNLIMITED
    again = admits_again(counter) if limit.sliding else counter.expiry
    return AccountView(
        limit=limit.name,
        key=counter.key,
        period=limit.period.name,
        quota=None if unlimited else counter.quota,
        source=source(counter),
        used=counter.used,
        left=None if unlimited else max(0, counter.quota - counter.used),
        not_stored=sum(pending.by_window(counter).values()),
        reset=again,
        reset_at=limit.period.describe(again) if again else NOW,
        counts="messages" if limit.by_message else "recipients",
        enforced=limit.enforce,
        seen=seen,
        until=counter.until or None,
    )


def view_of_domain(meter: Meter, domain: str, row: Row | None, now: int) -> AccountView:
    """What the row of a domain, or its absence, gives each of its accounts."""
    limit = meter.limit
    holds = row is not None and row.persist
    quota = row.quota if row is not None and holds else limit.configured_quota(domain)
    end = 0 if limit.sliding else limit.period.end(now)
    return AccountView(
        limit=limit.name,
        key=domain,
        period=limit.period.name,
        quota=None if quota == UNLIMITED else quota,
        source="database, persistent" if holds else _configured(meter, domain),
        used=0,
        left=None if quota == UNLIMITED else quota,
        not_stored=0,
        reset=end,
        reset_at=limit.period.describe(end) if end else NOW,
        counts="messages" if limit.by_message else "recipients",
        enforced=limit.enforce,
        seen=holds,
        domain=True,
    )


def source(counter: Counter) -> str:
    """Where a counter's quota comes from, in words."""
    describe = counter.limit.period.describe
    match counter.source:
        case Source.PERSISTENT:
            return "database, persistent"
        case Source.GRANTED:
            end = (
                "until nothing was sent for a period" if counter.limit.sliding else f"until {describe(counter.expiry)}"
            )
            return f"database, {end}"
        case Source.TIMED:
            base = counter.meter.base(counter.key)
            after = f"{base.quota or 'unlimited'} ({of_base(counter.meter, counter.key, base)})"
            return f"database, until {describe(counter.until)}, then {after}"
        case _:
            return of_base(counter.meter, counter.key, Held(counter.quota, counter.source))


def of_base(meter: Meter, key: str, base: Held) -> str:
    """Where the quota comes from that an account has without one of its own."""
    if base.source is Source.DOMAIN:
        return f"database, row {meter.limit.domain_of(key)}"
    return _configured(meter, key)


def _configured(meter: Meter, key: str) -> str:
    exception = meter.limit.exception_for(key)
    name = meter.limit.name
    return f"limit {name}" if exception is None else f'limit {name}, quotas."{exception}"'
