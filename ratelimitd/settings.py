"""What may be configured: every setting of ratelimitd.toml, with its type, bounds and default.

`Live[...]` marks what a reload (SIGHUP) applies, a setting or a whole section; all others need a restart. A default
stands here and nowhere else.
"""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from msgspec import Meta, Struct, field, to_builtins

from ratelimitd.core.windows import WeekStart
from ratelimitd.errors import is_secret
from ratelimitd.logins import LoginRules
from ratelimitd.text import public

T = TypeVar("T")


class _Live:
    """The mark of `Live`."""


Live = Annotated[T, _Live()]

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Mode = Annotated[str, Meta(pattern=r"^0?[0-7]{3}$")]
Quota = Annotated[int, Meta(ge=0, le=4_294_967_295)]
QuotaSetting = Quota | Literal["unlimited"]
Level = Literal["debug", "info", "notice", "warning", "error", "critical"]
Format = Literal["postfix-policyd", "json"]
JournalSync = Literal["flush", "always", "never"]
Count = Literal["recipients", "messages"]
Window = Literal["fixed", "sliding"]
Text = Annotated[str, Meta(min_length=1)]
Percent = Annotated[int, Meta(ge=1, le=1000)]

AS_SET_FOR_ALL = "global"
CountRejected = bool | Literal["global"]

DEFAULT_ACTION = "450 4.7.1 {period} message quota exceeded, {used}/{quota}, resets at {reset}"
MESSAGE_ACTION = "452 4.5.3 too many recipients in one message, {used}/{quota}"
"""The default of a limit with `period = "message"`."""


class Section(Struct, forbid_unknown_fields=True):
    """A table of the file; an unknown key in it is an error."""

    def __repr__(self) -> str:
        values = ((name, "..." if is_secret(name) else _public(getattr(self, name))) for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values)})"


def _public(value: object) -> object:
    if isinstance(value, str):
        return public(value)
    return [_public(item) for item in value] if isinstance(value, list) else value


class Server(Section):
    """`[server]`: where Postfix connects to, and what one client may take."""

    listen: Live[Annotated[list[str], Meta(min_length=1)]] = field(default_factory=lambda: ["127.0.0.1:10032"])
    unix_mode: Mode = "0660"
    unix_group: str = ""
    unix_users: Live[list[str]] = []
    allow: Live[list[str]] = field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    max_connections: Live[Annotated[int, Meta(ge=1, le=1_000_000)]] = 4096
    max_request_bytes: Live[Annotated[int, Meta(ge=2048, le=16_777_216)]] = 65536
    max_accounts: Live[Annotated[int, Meta(ge=1000, le=1_000_000_000)]] = 1_000_000
    max_transactions: Live[Annotated[int, Meta(ge=2, le=100_000_000)]] = 100_000
    max_remembered_recipients: Live[Annotated[int, Meta(ge=2, le=100_000_000)]] = 500_000
    request_timeout_s: Live[Seconds] = 30.0
    failure_action: Live[str] = "DUNNO"
    shutdown_timeout_s: Live[Seconds] = 10.0

    @property
    def socket_mode(self) -> int:
        """`unix_mode` as a number."""
        return int(self.unix_mode, 8)


class StoreSettings(Section):
    """`[store]`: the database."""

    backend: Literal["sqlite", "mysql", "postgresql"] = "sqlite"
    flush_interval_s: Live[Annotated[float, Meta(ge=0.05, le=3600)]] = 5.0
    timeout_s: Live[Annotated[float, Meta(ge=0.01, le=60)]] = 1.0
    refresh_s: Live[Annotated[float, Meta(ge=0.1, le=3600)]] = 30.0
    path: Text = "ratelimit.sqlite3"
    host: Text | Annotated[list[Text], Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    unix_socket: str = ""
    service: str = ""
    user: str = "policyd"
    password: str = ""
    password_file: str = ""
    database: Text = "policyd"
    tls_ca: str = ""
    tls_verify_name: bool = True
    server_public_key: str = ""
    history_days: Live[Annotated[int, Meta(ge=0, le=3660)]] = 0
    strict_below: Live[Annotated[float, Meta(ge=0, le=1)]] = 0.1
    table: Text = "ratelimit"
    columns: dict[str, str] = {}

    @property
    def usual_port(self) -> int:
        """The port of a server of the backend whose host is named without one, where `port` is 0."""
        return 5432 if self.backend == "postgresql" else 3306


class LimitSettings(Section, kw_only=True):
    """`[[limit]]`: how many recipients, per what, in which time."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "default"
    key: Text = "email"
    period: Text = "daily"
    window: Window = "fixed"
    quota: QuotaSetting
    action: str = DEFAULT_ACTION
    quotas: dict[str, QuotaSetting] = {}
    enforce: bool = True
    count: Count = "recipients"
    count_rejected: CountRejected = "global"
    free_recipients: list[str] = []


class LogSettings(Section):
    """`[log]`: where the lines go, and which."""

    syslog: str = "/dev/log"
    ident: Annotated[str, Meta(pattern=r"^[!-Z\\^-~]{1,48}$")] = "ratelimitd"
    facility: str = "mail"
    file: str = ""
    stderr: bool = False
    max_backlog_bytes: Annotated[int, Meta(ge=65_536, le=1_073_741_824)] = 4_194_304
    format: Format = "postfix-policyd"
    level: Level = "info"


class NotifySettings(Section, kw_only=True):
    """`[[notify]]`: who is notified when an account has reached a share of its quota."""

    at: Annotated[list[Percent], Meta(min_length=1, max_length=10)] = field(default_factory=lambda: [80, 100])
    limits: list[str] = []
    command: list[Text] = []
    url: str = ""
    secret: str = ""
    secret_file: str = ""
    tls_ca: str = ""
    timeout_s: Annotated[float, Meta(ge=0.1, le=300)] = 10.0
    retries: Annotated[int, Meta(ge=0, le=20)] = 5
    max_waiting: Annotated[int, Meta(ge=1, le=100_000)] = 1000


class Metrics(Section):
    """`[metrics]`: Prometheus."""

    listen: str = ""
    top_accounts: Annotated[int, Meta(ge=0, le=1000)] = 0


class Control(Section):
    """`[control]`: the socket of ratelimitctl."""

    socket: Text = "control.sock"
    mode: Mode = "0600"

    @property
    def socket_mode(self) -> int:
        """`mode` as a number."""
        return int(self.mode, 8)


class Keys(Section):
    """`[keys]`: how keys are normalised. Its tables, `[keys.NAME]`, are the options of key plugins."""

    lowercase: bool = True
    default_domain: str = ""
    domains: list[str] = []
    ascii: bool = False

    @property
    def login_rules(self) -> LoginRules:
        """Which logins are one account."""
        return LoginRules(self.default_domain, self.domains, self.ascii)


class Settings(Section, kw_only=True):
    """The whole file."""

    state_dir: Text = "/var/lib/ratelimitd"
    timezone: Live[Text] = "local"
    week_starts: Live[WeekStart] = "sunday"
    count_rejected: Live[bool] = True
    journal_sync: Live[JournalSync] = "flush"
    user: str = ""
    group: str = ""
    pid_file: str = ""
    server: Server = field(default_factory=Server)
    store: StoreSettings = field(default_factory=StoreSettings)
    keys: Live[Keys] = field(default_factory=Keys)
    limit: Live[Annotated[list[LimitSettings], Meta(min_length=1)]]
    log: Live[LogSettings] = field(default_factory=LogSettings)
    notify: Live[list[NotifySettings]] = []
    metrics: Metrics = field(default_factory=Metrics)
    control: Control = field(default_factory=Control)


def needing_a_restart(old: Settings, new: Settings) -> list[str]:
    """The settings that differ and that a reload does not apply, by their paths."""
    before, after = to_builtins(old), to_builtins(new)
    return [path for path in restarts() if _at(before, path) != _at(after, path)]


@cache
def restarts() -> tuple[str, ...]:
    """The paths of all settings that are not marked Live."""
    paths: list[str] = []
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        if _is_live(hint):
            continue
        if isinstance(hint, type) and issubclass(hint, Section):
            inner = get_type_hints(hint, include_extras=True)
            paths += [f"{name}.{setting}" for setting in inner if not _is_live(inner[setting])]
        else:
            paths.append(name)
    return tuple(paths)


def _is_live(hint: Any) -> bool:
    return any(isinstance(mark, _Live) for mark in getattr(hint, "__metadata__", ()))


def _at(settings: dict[str, Any], path: str) -> Any:
    section, _, name = path.rpartition(".")
    return settings[section][name] if section else settings[name]
