"""The answers that `ratelimitctl` gives by itself, and what each verb prints with `--json`."""

import json
from typing import Annotated

from msgspec import Meta, field, to_builtins

from ratelimitd.control.answers import (
    AccountHistory,
    Answer,
    Cache,
    CountsReset,
    DumpWritten,
    QuotaSet,
    QuotasUnset,
    Ranking,
    Reloaded,
    RunningStatus,
    ShownAccount,
    StoppedStatus,
)


def line_of(answer: Answer) -> str:
    """An answer as a line of JSON."""
    return json.dumps(to_builtins(answer)) + "\n"


class CheckedLimit(Answer, frozen=True):
    """A limit, and its key plugin."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    key: Annotated[str, Meta(description="the name of its key plugin")]
    plugin: Annotated[str, Meta(description="distribution and version of the plugin")]


class Checked(Answer, frozen=True):
    """A configuration that can be read."""

    config: Annotated[str, Meta(description="the configuration file")]
    limits: Annotated[list[CheckedLimit], Meta(description="its limits")]
    store: Annotated[str, Meta(description="backend and database; empty if it cannot be opened")]
    error: Annotated[str | None, Meta(description="why the store cannot be opened")]
    remarks: Annotated[list[str], Meta(description="what should be looked at, as rows that can never match a key")]


class Line(Answer, frozen=True):
    """A line of a configuration that fixes something; in place of the one that sets the same, if there is one."""

    file: Annotated[str, Meta(description="the file: `main.cf`, `master.cf` or `ratelimitd.toml`")]
    under: Annotated[
        str, Meta(description="the service of master.cf, or the table of ratelimitd.toml; empty for main.cf")
    ]
    text: Annotated[str, Meta(description="the line as it is to be written, with the blanks that it begins with")]


class Fault(Answer, frozen=True):
    """Something that is wrong."""

    name: Annotated[str, Meta(description="its name, for programs")]
    what: Annotated[str, Meta(description="what is wrong, for people")]
    fix: Annotated[str, Meta(description="how to fix it, for people")]
    lines: Annotated[list[Line], Meta(description="lines that do; empty where there is more to it")] = field(
        default_factory=list
    )


class Diagnosis(Answer, frozen=True):
    """Everything that is wrong."""

    faults: Annotated[list[Fault], Meta(description="what is wrong; empty if nothing is")]


class InstalledPlugin(Answer, frozen=True):
    """A key plugin that is installed or used."""

    name: Annotated[str, Meta(description="its name, as `key` of a limit")]
    distribution: Annotated[str | None, Meta(description="the distribution that has it; null: it is not installed")]
    version: Annotated[str | None, Meta(description="the version of the distribution")]
    entry_point: Annotated[str | None, Meta(description="module and factory")]
    limits: Annotated[list[str], Meta(description="names of the limits that use it")]
    error: Annotated[str | None, Meta(description="why it does not work")]
    options: Annotated[bool, Meta(description="whether the configuration has a table `[keys.NAME]` for it")]


class Inventory(Answer, frozen=True):
    """All key plugins."""

    config: Annotated[str, Meta(description="the configuration file")]
    error: Annotated[str | None, Meta(description="why the file cannot be read")]
    plugins: Annotated[list[InstalledPlugin], Meta(description="the key plugins, by name")]


class Migrated(Answer, frozen=True):
    """A migration."""

    dry_run: Annotated[bool, Meta(description="whether nothing was changed")]
    done: Annotated[list[str], Meta(description="what was done, or with `--dry-run` would be; a line each")]
    error: Annotated[str | None, Meta(description="why it ended before all was done")]


class RefusedAccount(Answer, frozen=True):
    """An account that a limit would have refused something."""

    key: Annotated[str, Meta(description="the account")]
    refused: Annotated[int, Meta(description="recipients refused; messages, if the limit counts these")]
    first: Annotated[
        str, Meta(description="when it was refused first, in ISO 8601; of a report, when that window, or part, began")
    ]
    worst: Annotated[int, Meta(description="the most that it tried to send in a window")]


class Bucket(Answer, frozen=True, kw_only=True):
    """Uses between two numbers."""

    from_: Annotated[int, Meta(description="the least of these uses")] = field(name="from")
    to: Annotated[int, Meta(description="the greatest of these uses")]
    windows: Annotated[int, Meta(description="windows in which an account used so much")]
    accounts: Annotated[int, Meta(description="accounts that used so much in the window in which they used most")]


class LimitUse(Answer, frozen=True, kw_only=True):
    """What accounts use under a limit. Recipients are messages, if the limit counts these."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    period: Annotated[str, Meta(description="its period, as configured")]
    window: Annotated[str, Meta(description="whether its windows are `fixed` or `sliding`")]
    counts: Annotated[str, Meta(description="what it counts: `recipients` or `messages`")]
    enforced: Annotated[bool, Meta(description="whether it refuses; if not, only what it would refuse is known")]
    quota: Annotated[int | None, Meta(description="its quota for accounts without one of their own; null: unlimited")]
    accounts: Annotated[int, Meta(description="accounts that sent something")]
    recipients: Annotated[int, Meta(description="recipients that they tried to send to, refused ones included")]
    refused_recipients: Annotated[
        int | None,
        Meta(description="those that this limit refused, or would but for `enforce`; null, of a report: not known, for "
             "`count_rejected` is false"),
    ]  # fmt: skip
    refused_accounts: Annotated[int | None, Meta(description="accounts that it refused something; null as before")]
    refused: Annotated[
        list[RefusedAccount],
        Meta(description="these accounts, those that were refused most first; of a report a thousand at most"),
    ]
    quantiles: Annotated[
        dict[str, int],
        Meta(description="what an account tries to send in a window in which it sends: no more than this in 50, 90, 99 "
             "and 100 percent of all cases"),
    ]  # fmt: skip
    quota_for: Annotated[
        dict[str, int],
        Meta(description="the least quota that would have refused no more than 1%, 0.1% and none (0) of the accounts"),
    ]
    histogram: Annotated[
        list[Bucket],
        Meta(description="how often how much was used, in buckets whose ends are ten to each power of ten; empty ones "
             "are left out"),
    ]  # fmt: skip


class Day(Answer, frozen=True, kw_only=True):
    """What was sent on a day."""

    day: Annotated[str, Meta(description="its date, in ISO 8601")]
    messages: Annotated[int, Meta(description="messages that were begun on it, of senders who had logged in")]
    recipients: Annotated[int, Meta(description="recipients of these messages")]
    refused_recipients: Annotated[int, Meta(description="those that a limit refused, or would but for `enforce`")]


class Replayed(Answer, frozen=True, kw_only=True):
    """A log that the configured limits have decided on."""

    from_: Annotated[str | None, Meta(description="the time of its first line, in ISO 8601; null: no line has one")] = (
        field(name="from")
    )
    to: Annotated[str | None, Meta(description="the time of its last line")]
    lines: Annotated[int, Meta(description="its lines; of a journal, its entries")]
    unreadable: Annotated[int, Meta(description="lines that could not be read")]
    messages: Annotated[int, Meta(description="messages of senders who had logged in")]
    recipients: Annotated[int, Meta(description="recipients of these messages")]
    limits: Annotated[list[LimitUse], Meta(description="the configured limits, in their order")]
    days: Annotated[list[Day], Meta(description="the days on which something was sent, by the configured time zone")]
    remarks: Annotated[
        list[str], Meta(description="what should be known of the files: damage, lines that could not be read")
    ]


class ReportedDay(Answer, frozen=True, kw_only=True):
    """What was sent on a day."""

    day: Annotated[str, Meta(description="its date, in ISO 8601")]
    recipients: Annotated[int, Meta(description="recipients that accounts tried to send to")]
    accounts: Annotated[int, Meta(description="accounts that sent something")]
    refused_recipients: Annotated[
        int | None, Meta(description="those that the limit refused, or would but for `enforce`; null: not known")
    ]


class ReportedAccount(Answer, frozen=True, kw_only=True):
    """An account that sent much."""

    key: Annotated[str, Meta(description="the account")]
    quota: Annotated[int | None, Meta(description="the quota that holds for it now; null: unlimited")]
    recipients: Annotated[int, Meta(description="recipients that it tried to send to, in all")]
    windows: Annotated[int, Meta(description="windows in which it sent something")]
    worst: Annotated[int, Meta(description="the most that it tried to send in a window")]


class NewAccount(ReportedAccount, frozen=True, kw_only=True):
    """An account that was new and sent much at once."""

    first: Annotated[str, Meta(description="when its first window began, in ISO 8601")]
    at_once: Annotated[int, Meta(description="what it tried to send in that window")]


class OverAccount(Answer, frozen=True, kw_only=True):
    """An account that used more than its quota, as it holds now."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    key: Annotated[str, Meta(description="the account")]
    quota: Annotated[int, Meta(description="the quota that holds for it now")]
    worst: Annotated[int, Meta(description="the most that it tried to send in a window")]
    over: Annotated[int, Meta(description="how much more than the quota that is")]
    windows: Annotated[int, Meta(description="windows in which it used more than the quota")]
    first: Annotated[str, Meta(description="when the first of them, or the part that went beyond, began, in ISO 8601")]
    last: Annotated[str, Meta(description="the same of the last of them")]


class UnusedQuota(Answer, frozen=True, kw_only=True):
    """A quota that nobody has come near: no account has used half of it in a window."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    of: Annotated[str | None, Meta(description="whose quota it is: an account, or `@a.domain`; null: the limit's own")]
    source: Annotated[str, Meta(description="where it comes from: `configuration` or `database`")]
    quota: Annotated[int, Meta(description="the quota")]
    accounts: Annotated[int, Meta(description="accounts that sent something under it")]
    worst: Annotated[int, Meta(description="the most that one of them used in a window")]


class Report(Answer, frozen=True, kw_only=True):
    """What accounts used in the last days. Lists of accounts have the first thousand at most."""

    from_: Annotated[str, Meta(description="where it begins, in ISO 8601: a midnight, or where the history does")] = (
        field(name="from")
    )
    to: Annotated[str, Meta(description="when it was made")]
    counted_by: Annotated[
        str | None,
        Meta(description="the limit that `recipients`, `accounts`, `days`, `most` and `new` are of: of those that "
             "count recipients in windows of a day at most the one with most accounts; null: nothing was sent"),
    ]  # fmt: skip
    recipients: Annotated[int, Meta(description="recipients that accounts tried to send to")]
    accounts: Annotated[int, Meta(description="accounts that sent something")]
    days: Annotated[
        list[ReportedDay],
        Meta(description="each day, by the configured time zone; none where no limit has windows of a day at most"),
    ]
    limits: Annotated[list[LimitUse], Meta(description="the limits that are stored, in their order")]
    most: Annotated[list[ReportedAccount], Meta(description="the accounts that sent most, most first")]
    over: Annotated[list[OverAccount], Meta(description="accounts over their quota, those that were most over first")]
    new: Annotated[
        list[NewAccount],
        Meta(description="accounts that sent nothing in the first fourth of the time, a week at most, and in their "
             "first window no less than is used in 99 percent of all windows; most first"),
    ]  # fmt: skip
    unused_quotas: Annotated[list[UnusedQuota], Meta(description="quotas that nobody has come near, greatest first")]
    remarks: Annotated[list[str], Meta(description="what should be known of the numbers")]


PRINTED: dict[str, tuple[type[Answer], ...]] = {
    "status": (RunningStatus, StoppedStatus),
    "show": (ShownAccount,),
    "history": (AccountHistory,),
    "top": (Ranking,),
    "set": (QuotaSet,),
    "unset": (QuotasUnset,),
    "reset": (CountsReset,),
    "dump": (DumpWritten, Cache),
    "reload": (Reloaded,),
    "check": (Checked,),
    "doctor": (Diagnosis,),
    "plugins": (Inventory,),
    "replay": (Replayed,),
    "report": (Report,),
    "migrate": (Migrated,),
}
"""What each verb prints; any verb that fails prints a Failure."""
