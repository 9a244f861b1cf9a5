"""The answers that `ratelimitctl` gives by itself, and what each verb prints with `--json`."""

from typing import Annotated

from msgspec import Meta, field

from ratelimitd.control.answers import (
    Answer,
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


class RefusedAccount(Answer, frozen=True):
    """An account that a limit would have refused something."""

    key: Annotated[str, Meta(description="the account")]
    refused: Annotated[int, Meta(description="recipients refused; messages, if the limit counts these")]
    first: Annotated[str, Meta(description="when it was refused first, in ISO 8601")]
    worst: Annotated[int, Meta(description="the most that it tried to send in a window")]


class LimitUse(Answer, frozen=True, kw_only=True):
    """What accounts use under a limit. Recipients are messages, if the limit counts these."""

    limit: Annotated[str, Meta(description="the name of the limit")]
    period: Annotated[str, Meta(description="its period, as configured")]
    window: Annotated[str, Meta(description="whether its windows are `fixed` or `sliding`")]
    quota: Annotated[int | None, Meta(description="its quota for accounts without one of their own; null: unlimited")]
    accounts: Annotated[int, Meta(description="accounts that sent something")]
    recipients: Annotated[int, Meta(description="recipients that they tried to send to, refused ones included")]
    refused_recipients: Annotated[int, Meta(description="those that this limit refused, or would but for `enforce`")]
    refused_accounts: Annotated[int, Meta(description="accounts that it refused something")]
    refused: Annotated[list[RefusedAccount], Meta(description="these accounts, those that were refused most first")]
    quantiles: Annotated[
        dict[str, int],
        Meta(description="what an account tries to send in a window in which it sends: no more than this in 50, 90, 99 "
             "and 100 percent of all cases"),
    ]  # fmt: skip
    quota_for: Annotated[
        dict[str, int],
        Meta(description="the least quota that would have refused no more than 1%, 0.1% and none (0) of the accounts"),
    ]


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


PRINTED: dict[str, tuple[type[Answer], ...]] = {
    "status": (RunningStatus, StoppedStatus),
    "show": (ShownAccount,),
    "top": (Ranking,),
    "set": (QuotaSet,),
    "unset": (QuotasUnset,),
    "reset": (CountsReset,),
    "dump": (DumpWritten,),
    "reload": (Reloaded,),
    "check": (Checked,),
    "doctor": (Diagnosis,),
    "plugins": (Inventory,),
    "replay": (Replayed,),
    "migrate": (Migrated,),
}
"""What each verb prints; any verb that fails prints a Failure."""
