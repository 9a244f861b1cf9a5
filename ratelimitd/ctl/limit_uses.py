"""What accounts use under a limit and what it refused, as a replay and a report answer it."""

from collections.abc import Sequence
from typing import NamedTuple

from ratelimitd.core.limits import Limit
from ratelimitd.ctl.answers import LimitUse, RefusedAccount
from ratelimitd.ctl.distribution import Distribution
from ratelimitd.settings import LimitSettings


class Counted(NamedTuple):
    """What was counted."""

    accounts: int
    recipients: int
    distribution: Distribution


class RefusedBy(NamedTuple):
    """What was refused: how many recipients of how many accounts, and of those the ones that are named."""

    recipients: int
    accounts: int
    named: Sequence[RefusedAccount]


def limit_use(limit: Limit, settings: LimitSettings, counted: Counted, refused: RefusedBy | None) -> LimitUse:
    """The answer. `settings` are the limit's; `refused` is None where that is not known."""
    distribution = counted.distribution
    return LimitUse(
        limit=limit.name,
        period=settings.period,
        window=settings.window,
        counts="messages" if limit.by_message else "recipients",
        enforced=limit.enforce,
        quota=limit.quota or None,
        accounts=counted.accounts,
        recipients=counted.recipients,
        refused_recipients=refused.recipients if refused else None,
        refused_accounts=refused.accounts if refused else None,
        refused=[*refused.named] if refused else [],
        quantiles=distribution.quantiles(),
        quota_for=distribution.quota_for(),
        histogram=distribution.histogram(),
    )
