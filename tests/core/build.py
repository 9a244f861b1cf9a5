"""Limits, requests and a policy as the tests of the core need them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Literal, cast, get_args

from ratelimitd.core.action import Template
from ratelimitd.core.calendars import Calendar, Length
from ratelimitd.core.counters import Counter
from ratelimitd.core.limits import Limit
from ratelimitd.core.memo import Memo
from ratelimitd.core.pending import Pending
from ratelimitd.core.policy import Policy, Rules
from ratelimitd.core.recipients import FreeRecipients
from ratelimitd.core.rows import Row
from ratelimitd.core.verdict import Charge, Verdict
from ratelimitd.core.watcher import Nobody, Watcher
from ratelimitd.core.windows import Message, Period, PeriodName, Sliding, length_s
from ratelimitd.keys import domain, email, everybody
from ratelimitd.log.log import Log
from ratelimitd.plugins import normalised
from ratelimitd.request import Request, RequestReader
from ratelimitd.settings import JournalSync, Server, StoreSettings
from ratelimitd.state.backlog import Backlog
from ratelimitd.state.directory import StateDir
from ratelimitd.state.journal import Journal
from ratelimitd.state.records import Writer
from ratelimitd.stores import Store
from ratelimitd.stores.link import StoreLink
from ratelimitd.sync.flush import Flush
from ratelimitd.sync.loader import Loader
from ratelimitd.sync.schedule import StoreSync

DAY_S = 86400
NOON = 20_000 * DAY_S + DAY_S // 2
MIDNIGHT = 20_001 * DAY_S

KEYS = {"email": email({}), "domain": domain({}), "all": everybody({})}
OVER = "450 4.7.1 {period} quota exceeded, {used}/{quota} of {key}"


def make_period(period: str, window: str = "fixed") -> Period:
    if period == "message":
        return Message(UTC)
    if window == "fixed" and period in get_args(PeriodName):
        return Calendar(cast(PeriodName, period), UTC, "sunday")
    seconds = length_s(period)
    assert seconds is not None
    return Sliding(seconds, UTC) if window == "sliding" else Length(seconds, UTC)


def limit(
    quota: int,
    *,
    name: str = "default",
    key: str | Callable[[Request], str | None] = "email",
    period: str = "daily",
    window: Literal["fixed", "sliding"] = "fixed",
    quotas: Mapping[str, int] | None = None,
    enforce: bool = True,
    by_message: bool = False,
    count_rejected: bool = True,
    free: Sequence[str] = (),
) -> Limit:
    function = KEYS[key] if isinstance(key, str) else key
    key_name = key if isinstance(key, str) else "own"
    return Limit(
        name,
        key_name,
        normalised(key_name, function, True),
        make_period(period, window),
        quota,
        Template(OVER),
        quotas or {},
        enforce=enforce,
        by_message=by_message,
        of_login=getattr(function, "of_login", False),
        count_rejected=count_rejected and period != "message",
        free=FreeRecipients(free),
    )


def memo(max_transactions: int = 1000, max_recipients: int = 500_000) -> Memo:
    return Memo(max_transactions, max_recipients)


def journal_in(folder: Path, node: str = "5e6f", sync: JournalSync = "flush") -> Journal:
    return Journal(folder, node, sync)


def rules(failure: str = "DUNNO", strict_below: float = 0.0) -> Rules:
    return Rules(Template(failure).fixed, strict_below)


def policy(
    *limits: Limit, under: Rules | None = None, kept: Memo | None = None, watch: Watcher | None = None
) -> Policy:
    return Policy(limits, under or rules(), Pending(), kept or memo(), watch or Nobody())


def store_sync(
    store: Store, asked: Policy, folder: Path, clock: Callable[[], float] = time.time, **settings: float
) -> StoreSync:
    """What keeps a policy and a store in step, with its journal in a folder; not begun yet."""
    log, store_settings = Log([]), StoreSettings(**settings)  # type: ignore[arg-type]
    backlog = Backlog(asked.pending, journal_in(folder), clock)
    return synced(store, asked, backlog, StateDir(folder), log, store_settings, clock)


def synced(
    store: Store, asked: Policy, backlog: Backlog, state: StateDir, log: Log, settings: StoreSettings,
    clock: Callable[[], float] = time.time,
) -> StoreSync:  # fmt: skip
    link = StoreLink(store, log)
    loader = Loader(link, asked, backlog, settings.timeout_s, clock)
    flusher = Flush(link, loader, backlog, state, log)
    return StoreSync(link, loader, flusher, asked, settings, Server().max_accounts, clock)


def request(state: str = "RCPT", login: str = "alice@example.com", **attributes: object) -> Request:
    values: dict[str, object] = {
        "request": "smtpd_access_policy",
        "protocol_state": state,
        "instance": "1.a",
        "recipient": "bob@example.org" if state == "RCPT" else "",
        "recipient_count": 0,
        "sasl_username": login,
    }
    values |= attributes
    return Request.of("\n".join(f"{name}={value}" for name, value in values.items()))


def row(key: str, *, quota: int = 1000, configured: int | None = 1000, persist: bool = False, used: int = 0,
        expiry: int = MIDNIGHT, updated: int = NOON, name: str = "default") -> Row:  # fmt: skip
    return Row(name, key, quota, configured, persist, used, expiry, updated)


def arrived(reader: RequestReader, data: bytes) -> Iterator[Request]:
    """The requests that this completes."""
    request = reader.receive(data)
    while request is not None:
        yield request
        request = reader.next()


def charge(pending: Pending, counter: Counter, recipients: int) -> None:
    """What Policy does to an account."""
    counter.used += recipients
    deltas = pending.open.deltas
    deltas[counter] = deltas.get(counter, 0) + recipients


def record(charge: Charge | None) -> str:
    """What the journal writes of it."""
    return Writer().records([charge]) if charge is not None else ""


def ask(asked: Policy, what: Request, now: int = NOON, rows: Mapping[str, Row] | None = None) -> Verdict:
    """The verdict, with accounts that are not in memory looked up in `rows`."""
    verdict = asked.decide(what, now)
    if isinstance(verdict, Verdict):
        return verdict
    for meter, key in verdict.missing(now):
        meter.accept(key, (rows or {}).get(key), 0, now)
    return asked.decide_waiting(verdict, now)


def rcpt(asked: Policy, recipient: str, instance: str = "1.a", now: int = NOON, **attributes: object) -> Verdict:
    return ask(asked, request("RCPT", recipient=recipient, instance=instance, **attributes), now)  # type: ignore[arg-type]


def data(
    asked: Policy, count: object, instance: str = "1.a", state: str = "DATA", now: int = NOON, **attributes: object
) -> Verdict:
    return ask(asked, request(state, recipient_count=count, instance=instance, **attributes), now)  # type: ignore[arg-type]


def used(asked: Policy, key: str = "alice@example.com", name: str = "default") -> int:
    meter = next(meter for meter in asked.meters if meter.limit.name == name)
    counter = meter.counters.get(key)
    return counter.used if counter is not None else 0
