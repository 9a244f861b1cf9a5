"""The answers of the control channel: a type for each command's, with what each field means.

`ratelimitctl --json` prints these types as they are; its man page is made from the descriptions.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Answer(Struct, frozen=True):
    """An answer, or a part of one."""


class Failure(Answer, frozen=True):
    """An error, in place of any other answer."""

    error: Annotated[str, Meta(description="what is wrong, in one line")]
    exit: Annotated[int, Meta(description="the exit status")]


# -- status ------------------------------------------------------------------------------------------------------------


class StoreHealth(Answer, frozen=True):
    """The store, and whether it answers."""

    name: Annotated[str, Meta(description="backend and database, without a password")]
    up: Annotated[bool, Meta(description="whether it is available")]


class StoreStatus(StoreHealth, frozen=True):
    """The store of a running daemon, and the flushes to it."""

    failures: Annotated[int, Meta(description="failed lookups and flushes since the start")]
    flushes: Annotated[int, Meta(description="flushes that stored something since the start")]
    last_flush_s_ago: Annotated[float | None, Meta(description="seconds since a flush left nothing to store")]
    last_flush_ms: Annotated[float, Meta(description="how long that flush took, in milliseconds")]
    rejected: Annotated[int, Meta(description="records that the database refused; they are in `rejected.tsv`")]


class JournalStatus(Answer, frozen=True):
    """The journal's files."""

    segments: Annotated[int, Meta(description="number of files")]
    bytes: Annotated[int, Meta(description="size of all files")]
    unwritten: Annotated[int, Meta(description="records that could not be written since the start")]
    error: Annotated[str | None, Meta(description="why it cannot be written now")]


class NotStored(Answer, frozen=True):
    """What is in memory and journal, and not in the store yet."""

    accounts: Annotated[int, Meta(description="accounts, each once per limit and window")]
    recipients: Annotated[int, Meta(description="recipients of these accounts")]


class RunningStatus(Answer, frozen=True, kw_only=True):
    """A running daemon. Numbers of events count since its start."""

    running: Annotated[bool, Meta(description="true: a daemon is running")] = True
    version: Annotated[str, Meta(description="version of ratelimitd")]
    pid: Annotated[int, Meta(description="process id")]
    started: Annotated[int, Meta(description="when it started, in seconds since 1970")]
    uptime_s: Annotated[float, Meta(description="seconds since then")]
    config: Annotated[str, Meta(description="the configuration file")]
    listen: Annotated[list[str], Meta(description="the addresses that Postfix may ask")]
    limits: Annotated[list[str], Meta(description="names of the limits")]
    store: Annotated[StoreStatus, Meta(description="the store")]
    journal: Annotated[JournalStatus, Meta(description="the journal")]
    accounts: Annotated[dict[str, int], Meta(description="accounts in memory, by limit")]
    not_stored: Annotated[NotStored, Meta(description="what the store does not have yet")]
    requests: Annotated[int, Meta(description="requests answered")]
    per_second: Annotated[float, Meta(description="requests per second in the last ten seconds")]
    decisions: Annotated[dict[str, int], Meta(description="requests that were counted, by the status in the log")]
    connections: Annotated[int, Meta(description="open connections")]
    parked: Annotated[int, Meta(description="requests that wait for the store")]
    transactions: Annotated[int, Meta(description="SMTP transactions remembered")]
    evicted: Annotated[int, Meta(description="accounts evicted from memory for `server.max_accounts`")]
    lookups_held: Annotated[int, Meta(description="lookups delayed while memory was full of accounts not stored")]
    transactions_forgotten: Annotated[int, Meta(description="transactions forgotten early: there were too many")]
    without_login: Annotated[int, Meta(description="requests without sasl_username")]
    log_lines_dropped: Annotated[int, Meta(description="log lines that could not be written")]
    log_lines_left_out: Annotated[int, Meta(description="repeated log lines that were summarised")]
    timeouts: Annotated[int, Meta(description="connections closed for `server.request_timeout_s`")]
    too_long: Annotated[int, Meta(description="requests over `server.max_request_bytes`")]
    not_postfix: Annotated[int, Meta(description="connections closed because they did not begin as Postfix's do")]
    refused_peers: Annotated[int, Meta(description="connections from clients that may not ask")]
    accept_pauses: Annotated[int, Meta(description="pauses in accepting connections: no file descriptor was free")]
    errors: Annotated[int, Meta(description="requests that failed with an internal error")]


class StoppedStatus(Answer, frozen=True, kw_only=True):
    """What is found while no daemon is running."""

    running: Annotated[bool, Meta(description="false: no daemon is running")] = False
    config: Annotated[str, Meta(description="the configuration file")]
    store: Annotated[StoreHealth, Meta(description="the store")]
    not_stored: Annotated[NotStored, Meta(description="what the journal has and the store has not")]


# -- accounts ----------------------------------------------------------------------------------------------------------


class AccountView(Answer, frozen=True):
    """An account under one limit."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    key: Annotated[str, Meta(description="the account's key")]
    period: Annotated[str, Meta(description="the period of the limit")]
    quota: Annotated[int | None, Meta(description="what it may use in a period; null: unlimited")]
    source: Annotated[str, Meta(description="where the quota comes from, in words")]
    used: Annotated[int, Meta(description="what it has used in this period")]
    left: Annotated[int | None, Meta(description="what it may still use; null: unlimited")]
    not_stored: Annotated[int, Meta(description="how much of `used` the store does not have yet")]
    reset: Annotated[
        int,
        Meta(description="when the period ends, in seconds since 1970; of a sliding limit, when one more is admitted"),
    ]
    reset_at: Annotated[str, Meta(description="the same in the configured timezone, for people; `room now` for 0")]
    counts: Annotated[Literal["recipients", "messages"], Meta(description="what the limit counts")]
    enforced: Annotated[bool, Meta(description="whether mail beyond the quota is refused, not only logged")]
    seen: Annotated[bool, Meta(description="whether it is known; if not, this is what its first mail would get")]
    until: Annotated[int | None, Meta(description="when a quota given until a time ends, in seconds since 1970")] = None
    domain: Annotated[bool, Meta(description="whether it is a domain: the quota is that of each of its accounts")] = (
        False
    )


class ShownAccount(Answer, frozen=True):
    """An account under every limit."""

    key: Annotated[str, Meta(description="the key that was asked for")]
    found: Annotated[bool, Meta(description="whether the account itself is known, not only one that it shares")]
    limits: Annotated[list[AccountView], Meta(description="the account under each limit")]


class LimitRanking(Answer, frozen=True):
    """Who has used most under one limit."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    period: Annotated[str, Meta(description="the period of the limit")]
    accounts: Annotated[
        list[AccountView], Meta(description="the accounts, first those that used most, or what `--sort` says")
    ]


class Ranking(Answer, frozen=True):
    """Who has used most in this period; one a line, every interval."""

    time: Annotated[float, Meta(description="when it was made, in seconds since 1970")]
    limits: Annotated[list[LimitRanking], Meta(description="a ranking for each limit")]


class UsedWindow(Answer, frozen=True):
    """What an account used in a window. Of a sliding limit it is a stretch as long as the period, one after the other
    since 1970."""

    begin: Annotated[int | None, Meta(description="when it began, in seconds since 1970; null: not as configured now")]
    begin_at: Annotated[str | None, Meta(description="the same in the configured timezone, for people")]
    end: Annotated[int, Meta(description="when it ended or will end, in seconds since 1970")]
    end_at: Annotated[str, Meta(description="the same in the configured timezone, for people")]
    used: Annotated[int, Meta(description="recipients that were counted in it")]
    most: Annotated[int, Meta(description="the most that counted at a time: of a fixed window the same")]
    running: Annotated[bool, Meta(description="whether it has not ended yet")]


class LimitHistory(Answer, frozen=True, kw_only=True):
    """What an account used under one limit."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    key: Annotated[str, Meta(description="the account's key")]
    period: Annotated[str, Meta(description="the period of the limit")]
    sliding: Annotated[bool, Meta(description="whether its windows slide")]
    counts: Annotated[Literal["recipients", "messages"], Meta(description="what the limit counts")]
    quota: Annotated[int | None, Meta(description="the quota that holds now; null: unlimited")]
    source: Annotated[str, Meta(description="where the quota comes from, in words")]
    used: Annotated[int, Meta(description="what was used in all these windows")]
    windows: Annotated[list[UsedWindow], Meta(description="each window in which something was used, in their order")]
    left_out: Annotated[int, Meta(description="earlier windows that are left out: there are more than five thousand")]


class AccountHistory(Answer, frozen=True, kw_only=True):
    """What an account used in each window of the last days."""

    key: Annotated[str, Meta(description="the key that was asked for")]
    found: Annotated[bool, Meta(description="whether the account is known, or has used something in these days")]
    days: Annotated[int, Meta(description="so many days are looked at, today among them")]
    history_days: Annotated[int, Meta(description="so many days are kept")]
    limits: Annotated[list[LimitHistory], Meta(description="the account under each limit")]


class QuotaChanged(AccountView, frozen=True, kw_only=True):
    """The account with the quota that holds now."""

    was: Annotated[int | None, Meta(description="the quota that held before; null: unlimited")]


class QuotaSet(QuotaChanged, frozen=True, kw_only=True):
    """The account with its new quota."""

    gave_up_persistent: Annotated[bool, Meta(description="whether its quota was persistent and no longer is")]
    persistent: Annotated[bool, Meta(description="whether the new one is")]
    until_at: Annotated[str | None, Meta(description="the same as `until` in the configured timezone, for people")]


class QuotasUnset(Answer, frozen=True):
    """The accounts that have no quota of their own any more."""

    key: Annotated[str, Meta(description="the key that was asked for")]
    limits: Annotated[list[QuotaChanged], Meta(description="the account under each limit where it had one")]


class CountReset(AccountView, frozen=True, kw_only=True):
    """The account with its count of 0."""

    was: Annotated[int, Meta(description="what it had used")]


class CountsReset(Answer, frozen=True):
    """The accounts whose count is 0 now."""

    key: Annotated[str, Meta(description="the key that was asked for")]
    limits: Annotated[list[CountReset], Meta(description="the account under each limit where it was reset")]


# -- the daemon --------------------------------------------------------------------------------------------------------


class DumpWritten(Answer, frozen=True):
    """Where the cache was dumped."""

    file: Annotated[str, Meta(description="the file")]


class CachedAccount(Answer, frozen=True):
    """A line of the cache: an account under one limit."""

    key: Annotated[str, Meta(description="the account's key")]
    limit: Annotated[str, Meta(description="the name of the limit")]
    quota: Annotated[int | None, Meta(description="what it may use in a period; null: unlimited")]
    used: Annotated[int, Meta(description="what it has used in the present period")]
    reset_at: Annotated[str, Meta(description="when that ends, or one more is admitted, in the configured timezone")]
    not_stored: Annotated[int, Meta(description="how much of it the store does not have yet")]


class Cache(Answer, frozen=True):
    """What is in memory, those first that have used most."""

    accounts: Annotated[list[CachedAccount], Meta(description="the accounts")]
    more: Annotated[int, Meta(description="how many more there are")]
    totals: Annotated[dict[str, int], Meta(description="the numbers of the last line, by their names")]


class Reloaded(Answer, frozen=True):
    """The configuration is applied."""

    needs_start: Annotated[list[str], Meta(description="changed settings that need a restart")]


class Evidence(Answer, frozen=True):
    """What a daemon has seen of Postfix, for `doctor`; it is not printed."""

    pid: int
    listen: list[str]
    requests: int
    decisions: int
    other_states: int
    without_login: int
    without_key: int
    bare_and_qualified: list[tuple[str, str]]
    many_domains: list[tuple[str, int]]
    other_windows: list[str] = []
    store_unavailable: str = ""
    spellings: list[tuple[str, str]] = []
