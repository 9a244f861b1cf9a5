"""Makes a Limit of each `[[limit]]`: its key function, period, quotas and reply."""

import os
import time
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from ratelimitd.config.zones import by_rule
from ratelimitd.core.action import ActionError, Template
from ratelimitd.core.calendars import Calendar, Length
from ratelimitd.core.limits import UNLIMITED, KeyHealth, Limit
from ratelimitd.core.recipients import FreeRecipients
from ratelimitd.core.windows import LENGTHS_S, Message, Period, PeriodName, Sliding, length_s
from ratelimitd.errors import ConfigError, shown
from ratelimitd.keys import normalise
from ratelimitd.plugins import load, normalised
from ratelimitd.settings import (
    AS_SET_FOR_ALL,
    DEFAULT_ACTION,
    MESSAGE_ACTION,
    LimitSettings,
    QuotaSetting,
    Settings,
)

MESSAGE = "message"
_LOCALTIME = Path("/etc/localtime")


def make_limit(
    index: int, limit: LimitSettings, settings: Settings, zone: tzinfo, options: Mapping[str, dict[str, Any]]
) -> Limit:
    """The limit of a `[[limit]]`, the index'th; `options` are those of all key plugins by name. Raises ConfigError."""
    where = f"limit[{index}]"
    lowercase = settings.keys.lowercase
    function = load(limit.key, options.get(limit.key, {}), f"{where}.key")
    quotas: dict[str, int] = {}
    for account, quota in limit.quotas.items():
        key = normalise(account, lowercase)
        if not key or key in quotas:
            found = f'"{account}" again' if key else '""'
            raise ConfigError(f'{where}.quotas."{account}"', found, "each account or @domain once, upper or lower case")
        quotas[key] = _quota(quota)
    _check_message(where, limit)
    of_message = limit.period == MESSAGE
    action = MESSAGE_ACTION if of_message and limit.action == DEFAULT_ACTION else limit.action
    health = KeyHealth()
    return Limit(
        limit.name,
        limit.key,
        normalised(limit.key, function, lowercase, health, time.perf_counter),
        _period(where, limit, settings, zone),
        _quota(limit.quota),
        template(f"{where}.action", action),
        quotas,
        enforce=limit.enforce,
        by_message=limit.count == "messages",
        health=health,
        of_login=getattr(function, "of_login", False),
        lowercase=lowercase,
        count_rejected=not of_message and _rejected_counted(limit, settings),
        free=_free(where, limit),
    )


def _period(where: str, limit: LimitSettings, settings: Settings, zone: tzinfo) -> Period:
    if limit.period == MESSAGE:
        return Message(zone)
    seconds = length_s(limit.period)
    if seconds is None:
        names = ", ".join(f'"{name}"' for name in (*LENGTHS_S, MESSAGE))
        wanted = f'{names}, or a length from "1s" to "366d": a whole number and s, m, h or d'
        raise ConfigError(f"{where}.period", shown(limit.period), wanted)
    if limit.window == "sliding":
        return Sliding(seconds, zone)
    if limit.period in LENGTHS_S:
        return Calendar(cast(PeriodName, limit.period), zone, settings.week_starts)
    return Length(seconds, zone)


def _rejected_counted(limit: LimitSettings, settings: Settings) -> bool:
    own = limit.count_rejected
    return settings.count_rejected if own == AS_SET_FOR_ALL else bool(own)


def _check_message(where: str, limit: LimitSettings) -> None:
    """Check what means nothing under a limit of one message."""
    if limit.period != MESSAGE:
        return
    if limit.window == "sliding":
        found = f'"sliding" with period = "{MESSAGE}"'
        raise ConfigError(f"{where}.window", found, '"fixed": one message has no window')
    if limit.count == "messages":
        raise ConfigError(f"{where}.count", f'"messages" with period = "{MESSAGE}"', '"recipients"')
    if limit.count_rejected != AS_SET_FOR_ALL:
        found = f'{str(limit.count_rejected).lower()} with period = "{MESSAGE}"'
        raise ConfigError(f"{where}.count_rejected", found, "no such setting there: what is refused is not counted")


def _free(where: str, limit: LimitSettings) -> FreeRecipients:
    try:
        return FreeRecipients(limit.free_recipients)
    except ValueError as error:
        wanted = 'a domain as "@example.org", or an address as "list@example.net"'
        i = limit.free_recipients.index(str(error))
        raise ConfigError(f"{where}.free_recipients[{i}]", f'"{error}"', wanted) from error


def _quota(setting: QuotaSetting) -> int:
    return UNLIMITED if setting == "unlimited" else int(setting)


def template(where: str, text: str) -> Template:
    """The reply of a setting, which `where` names. Raises ConfigError."""
    try:
        return Template(text)
    except ActionError as error:
        raise ConfigError(where, f'"{text}"', str(error)) from error


def time_zone(name: str) -> tzinfo:
    """The time zone of a name; `local` is that of TZ, else of /etc/localtime, else UTC. Raises ConfigError."""
    found = f'"{name}"'
    if name == "local":
        name = os.environ.get("TZ", "").removeprefix(":")
        found = f'"local", which is "{name or _LOCALTIME}"'
        if not name and not _LOCALTIME.exists():
            return UTC
    try:
        if not name or Path(name).is_absolute():
            with Path(name or _LOCALTIME).open("rb") as stream:
                return ZoneInfo.from_file(stream, key=name or "local")
        try:
            return ZoneInfo(name)
        except KeyError:
            return by_rule(name)
    except (OSError, ValueError, KeyError) as error:
        wanted = '"local", a name such as "Europe/Zurich", or a rule as TZ has it, "CET-1CEST,M3.5.0,M10.5.0/3"'
        raise ConfigError("timezone", found, wanted) from error
