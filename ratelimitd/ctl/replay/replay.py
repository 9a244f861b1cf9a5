"""`ratelimitctl replay`: reads the files, lets the limits decide, and makes the answer of what came of it."""

import gc
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path

from ratelimitd.config.read import Configuration
from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Rules
from ratelimitd.core.windows import HOUR_S
from ratelimitd.ctl.answers import Day, LimitUse, RefusedAccount, Replayed
from ratelimitd.ctl.limit_uses import Counted, RefusedBy, limit_use
from ratelimitd.ctl.progress import Progress
from ratelimitd.ctl.replay.bar import bar
from ratelimitd.ctl.replay.mails import Mails
from ratelimitd.ctl.replay.merge import merged
from ratelimitd.ctl.replay.reader import Reader
from ratelimitd.ctl.replay.sources import STDIN
from ratelimitd.ctl.replay.table import text
from ratelimitd.ctl.replay.trial import Trial
from ratelimitd.settings import LimitSettings


def replay(configuration: Configuration, names: Sequence[str]) -> tuple[Replayed, str]:
    """What the limits would have refused of these files: for programs, and for people. Raises Refused."""
    zone = configuration.limits[0].period.zone
    with_recipients = any(limit.free or not limit.of_login for limit in configuration.limits)
    progress = Progress()
    readers: list[Reader] = []
    for name in _each_once(names):
        readers.append(
            Reader(name, zone, lambda _: progress.show(lambda: bar(readers)), with_recipients=with_recipients)
        )
    rules = Rules(configuration.failure_action.fixed, strict_below=0.0)
    trial = Trial(configuration.limits, rules, configuration.settings.keys.login_rules)
    gc.disable()  # a mail leaves nothing behind that refers to itself; to look for it takes a sixth of the time
    try:
        mails, disordered = _run(readers, trial, with_recipients=with_recipients)
    finally:
        gc.enable()
        progress.clear()
    remarks = [*_missing(readers, mails, trial), *_remarks(readers, configuration.limits)]
    if disordered:
        remarks.append(
            f"{disordered:,} lines are more than an hour earlier than lines before them and may count wrongly; "
            "files that are named are read in the order of time"
        )
    answer = _answer(readers, trial, configuration.settings.limit, remarks)
    return answer, text(answer)


def _run(readers: Sequence[Reader], trial: Trial, *, with_recipients: bool) -> tuple[Mails, int]:
    """Decide on everything; the mails that there were, and how many lines were far out of order."""
    mails = Mails(with_recipients=with_recipients)
    latest = disordered = 0
    for instant, event in merged(readers):
        if instant > latest:
            latest = instant
        elif instant < latest - HOUR_S:
            disordered += 1
        for mail in mails.take(instant, event):
            trial.take(mail)
    for mail in mails.finish():
        trial.take(mail)
    return mails, disordered


def _each_once(names: Sequence[str]) -> list[str]:
    """The files; one that is named twice, or has two names, counts once."""
    found: dict[object, str] = {}
    for name in names:
        try:
            status = None if name == STDIN else Path(name).stat()
        except OSError:  # opening it says why
            status = None
        found.setdefault((status.st_dev, status.st_ino) if status else name, name)
    return [*found.values()]


def _answer(readers: Sequence[Reader], trial: Trial, limits: Sequence[LimitSettings], remarks: list[str]) -> Replayed:
    zone = trial.limits[0].period.zone
    begins = [reader.stamps.first for reader in readers if reader.stamps.first]
    ends = [reader.stamps.latest for reader in readers if reader.stamps.latest]
    return Replayed(
        from_=_local(min(begins), zone) if begins else None,
        to=_local(max(ends), zone) if ends else None,
        lines=sum(reader.lines for reader in readers),
        unreadable=sum(reader.unreadable for reader in readers),
        messages=trial.messages,
        recipients=trial.recipients,
        limits=[_limit(trial, place, settings, zone) for place, settings in enumerate(limits)],
        days=[
            Day(day=date, messages=of.messages, recipients=of.recipients, refused_recipients=of.refused)
            for date, of in sorted(trial.days.totals.items())
        ],
        remarks=remarks,
    )


def _limit(trial: Trial, place: int, settings: LimitSettings, zone: tzinfo) -> LimitUse:
    uses, refused = trial.uses[place], trial.refused[place]
    named = [
        RefusedAccount(key, each.recipients, _local(each.first, zone), uses.most.get(key, 0))
        for key, each in refused.items()
    ]
    named.sort(key=lambda each: (-each.refused, each.key))
    counted = Counted(len(uses.most), uses.recipients, uses.distribution())
    total = sum(each.refused for each in named)
    return limit_use(trial.limits[place], settings, counted, RefusedBy(total, len(named), named))


def _local(instant: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(instant, zone).isoformat()


def _missing(readers: Sequence[Reader], mails: Mails, trial: Trial) -> list[str]:
    """What a log lacks that would have mail in it."""
    if not trial.messages and not mails.begun and any(reader.stamps.first for reader in readers):
        return ["Postfix logs a login as sasl_username=; there is none"]
    if mails.unfinished * 2 <= mails.begun:  # who drops the connection leaves such a one behind
        return []
    return [
        f"{mails.unfinished:,} of {mails.begun:,} mails that were begun with a login have no line of qmgr with nrcpt=, "
        "and do not count"
    ]


def _remarks(readers: Sequence[Reader], limits: Sequence[Limit]) -> list[str]:
    """What an administrator should know of the files, and of key plugins that failed."""
    remarks = []
    for reader in readers:
        name = "standard input" if reader.name == STDIN else reader.name
        if reader.damage:
            remarks.append(f"{name} {reader.damage}; what could be read of it is counted")
        if reader.unreadable:
            remarks.append(f"{name}: {reader.unreadable:,} of {reader.lines:,} lines could not be read, the first:")
        remarks += [f"  {number}: {line[:100].decode(errors='backslashreplace')}" for number, line in reader.shown]
    for limit in limits:
        if limit.health.failures:
            remarks.append(f"limit {limit.name}: {limit.health.failures:,} requests had no key: {limit.health.failure}")
    return remarks
