"""`ratelimitctl report`: reads the history, adds it up, and makes the answer of it.

It reads the store itself, with the configuration, as the daemon's user and for reading alone, whether a daemon runs or
not: a large history takes minutes of a processor, which a daemon that answers mail does not have. What a daemon has
not stored yet, of the last `flush_interval_s` as a rule, is not in it.
"""

import time
from collections.abc import Sequence
from datetime import datetime, tzinfo

from msgspec.structs import asdict

from ratelimitd.config.read import Configuration
from ratelimitd.control.commands import NO, Refused
from ratelimitd.control.history import check_kept, midnights
from ratelimitd.core.limits import Limit
from ratelimitd.core.past import begin_at
from ratelimitd.core.rows import shown
from ratelimitd.ctl import offline
from ratelimitd.ctl.answers import (
    LimitUse,
    NewAccount,
    OverAccount,
    RefusedAccount,
    Report,
    ReportedAccount,
    ReportedDay,
    UnusedQuota,
)
from ratelimitd.ctl.limit_uses import Counted, RefusedBy, limit_use
from ratelimitd.ctl.progress import Progress
from ratelimitd.ctl.report.gather import Gathered, gather
from ratelimitd.ctl.report.totals import LISTED, Account, Totals
from ratelimitd.settings import LimitSettings
from ratelimitd.stores import Store

BASE_SHARE, BASE_DAYS = 4, 7
"""Who sent nothing in the first of so many parts of the time, or in so many days where that is less, is new."""


def report(configuration: Configuration, days: int) -> Report:
    """What accounts used in the last `days`, today among them. Raises Refused, StartError."""
    check_kept(configuration.settings.store.history_days)
    limits = [limit for limit in configuration.limits if not limit.of_message]
    if not limits:
        raise Refused("no limit is stored: all count the recipients of one message", NO)
    now = int(time.time())
    begins = midnights(configuration.limits[0].period.zone, now, days)

    progress = Progress()

    def tick(rows: int, key: str) -> None:
        progress.show(lambda: f"{rows:,} rows of the history, as far as {key}")

    async def work(store: Store) -> Gathered:
        return await gather(store, limits, begins, now, tick)

    try:
        (totals, others), remarks = offline.read(configuration, work)
    finally:
        progress.clear()
    remarks = [*_remarks(configuration, days), *remarks]
    if others:
        remarks.append(f"what limits counted that are configured no more is left out: {', '.join(map(shown, others))}")
    return answer(totals, configuration.settings.limit, now, remarks)


def answer(totals: Sequence[Totals], settings: Sequence[LimitSettings], now: int, remarks: list[str]) -> Report:
    """The answer of what was added up; `settings` are those of all limits."""
    zone = totals[0].limit.period.zone
    first = min(each.since_day for each in totals)
    settings_of = {each.name: each for each in settings}
    base = _counted_by(totals)
    return Report(
        from_=_local(totals[0].midnights[first], zone),
        to=_local(now, zone),
        counted_by=base.limit.name if base else None,
        recipients=base.recipients if base else 0,
        accounts=base.accounts if base else 0,
        days=_days(base, first, zone) if base and base.has_days else [],
        limits=[_limit(each, settings_of[each.limit.name]) for each in totals],
        most=list(map(_sender, base.most.items())) if base else [],
        over=_over(totals),
        new=_new(base, first) if base else [],
        unused_quotas=_unused(totals),
        remarks=remarks,
    )


def _counted_by(totals: Sequence[Totals]) -> Totals | None:
    """The limit that says most of who sent how much when."""

    def says(each: Totals) -> tuple[bool, bool, int]:
        return not each.limit.by_message, each.has_days, each.accounts

    return max((each for each in totals if each.accounts), key=says, default=None)


def _days(base: Totals, first: int, zone: tzinfo) -> list[ReportedDay]:
    return [
        ReportedDay(
            day=datetime.fromtimestamp(begin, zone).date().isoformat(),
            recipients=day.recipients,
            accounts=day.accounts,
            refused_recipients=day.beyond if base.knows_refused else None,
        )
        for begin, day in list(zip(base.midnights, base.days, strict=False))[first:]
    ]


def _limit(totals: Totals, settings: LimitSettings) -> LimitUse:
    limit, refused = totals.limit, None
    if totals.knows_refused:
        named = [
            RefusedAccount(one.key, one.beyond, _began(limit, one.first_over), one.worst)
            for one in totals.refused.items()
        ]
        refused = RefusedBy(totals.beyond, totals.accounts_over, named)
    counted = Counted(totals.accounts, totals.recipients, totals.distribution)
    return limit_use(limit, settings, counted, refused)


def _sender(account: Account) -> ReportedAccount:
    return ReportedAccount(
        key=account.key,
        quota=account.quota or None,
        recipients=account.recipients,
        windows=account.windows,
        worst=account.worst,
    )


def _over(totals: Sequence[Totals]) -> list[OverAccount]:
    found = [
        OverAccount(
            limit=each.limit.name,
            key=account.key,
            quota=account.quota,
            worst=account.worst,
            over=account.worst - account.quota,
            windows=account.windows_over,
            first=_began(each.limit, account.first_over),
            last=_began(each.limit, account.last_over),
        )
        for each in totals
        for account in each.over.items()
    ]
    return sorted(found, key=lambda one: -one.over)[:LISTED]


def _new(base: Totals, first: int) -> list[NewAccount]:
    """Those that were new and sent much: as much as is used in one of 100 windows at most, and more than in half."""
    days = len(base.days) - first
    since = first + min(BASE_DAYS, -(-days // BASE_SHARE))
    uses = base.distribution.quantiles()
    much = max(uses["99"], uses["50"] + 1)
    found = [account for day in base.new[since:] for account in day.items() if account.at_once >= much]
    return [
        NewAccount(**asdict(_sender(account)), first=_began(base.limit, account.begun), at_once=account.at_once)
        for account in sorted(found, key=lambda account: -account.at_once)
    ]


def _unused(totals: Sequence[Totals]) -> list[UnusedQuota]:
    found = []
    for each in totals:
        name = each.limit.name
        shared = [
            (whose.of, "database" if whose.stored else "configuration", use) for whose, use in each.quotas.items()
        ]
        for of, source, use in [*shared, *((key, "database", use) for key, use in each.own_quotas.items())]:
            if use.is_far:
                found.append(
                    UnusedQuota(
                        limit=name, of=of, source=source, quota=use.quota, accounts=use.accounts, worst=use.worst
                    )
                )
    return sorted(found, key=lambda one: -one.quota)[:LISTED]


def _remarks(configuration: Configuration, days: int) -> list[str]:
    """What should be known of the numbers, of this configuration."""
    remarks = ["quotas are those that hold now, also for windows in which others held"]
    kept = configuration.settings.store.history_days
    if kept < days:
        remarks.append(f"history_days is {kept}: there is nothing of days before that")
    for limit in configuration.limits:
        if limit.of_message:
            remarks.append(f"limit {limit.name} counts the recipients of one message: nothing of it is stored")
        elif not limit.count_rejected and limit.enforce:
            remarks.append(f"limit {limit.name} does not count what it refuses (count_rejected): that is not known")
    return remarks


def _began(limit: Limit, instant: int) -> str:
    return _local(begin_at(limit.period, instant), limit.period.zone)


def _local(instant: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(instant, zone).isoformat()
