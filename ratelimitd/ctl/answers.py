"""The answers that `ratelimitctl` gives by itself, and what each verb prints with `--json`."""

from typing import Annotated

from msgspec import Meta

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


class Fault(Answer, frozen=True):
    """Something that is wrong."""

    name: Annotated[str, Meta(description="its name, for programs")]
    what: Annotated[str, Meta(description="what is wrong, for people")]
    fix: Annotated[str, Meta(description="how to fix it, for people")]


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
    "migrate": (Migrated,),
}
"""What each verb prints; any verb that fails prints a Failure."""
