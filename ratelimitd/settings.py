"""What may be configured: every setting of ratelimitd.toml, with its type, bounds and default."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ratelimitd.core.windows import PeriodName, WeekStart
from ratelimitd.errors import SECRETS

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Mode = Annotated[str, Meta(pattern=r"^0?[0-7]{3}$")]
Quota = Annotated[int, Meta(ge=0, le=4_294_967_295)]
QuotaSetting = Quota | Literal["unlimited"]
Level = Literal["debug", "info", "notice", "warning", "error", "critical"]
Format = Literal["postfix-policyd", "json"]
JournalSync = Literal["flush", "always", "never"]
Count = Literal["recipients", "messages"]
Text = Annotated[str, Meta(min_length=1)]
Percent = Annotated[int, Meta(ge=1, le=1000)]

DEFAULT_ACTION = "450 4.7.1 {period} message quota exceeded, {used}/{quota}, resets at {reset}"


class Section(Struct, forbid_unknown_fields=True):
    """A table of the file; an unknown key in it is an error."""

    def __repr__(self) -> str:
        shown = ((name, "..." if name in SECRETS else getattr(self, name)) for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown)})"


class Server(Section):
    """`[server]`: where Postfix connects to, and what one client may take."""

    listen: Annotated[list[str], Meta(min_length=1)] = field(default_factory=lambda: ["127.0.0.1:10032"])
    unix_mode: Mode = "0660"
    unix_group: str = ""
    unix_users: list[str] = []
    allow: list[str] = field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    max_request_bytes: Annotated[int, Meta(ge=2048, le=16_777_216)] = 65536
    max_accounts: Annotated[int, Meta(ge=1000, le=1_000_000_000)] = 1_000_000
    max_transactions: Annotated[int, Meta(ge=2, le=100_000_000)] = 100_000
    max_remembered_recipients: Annotated[int, Meta(ge=2, le=100_000_000)] = 500_000
    request_timeout_s: Seconds = 30.0
    failure_action: str = "DUNNO"
    shutdown_timeout_s: Seconds = 10.0


class StoreSettings(Section):
    """`[store]`: the database."""

    backend: Literal["sqlite", "mysql"] = "sqlite"
    flush_interval_s: Annotated[float, Meta(ge=0.05, le=3600)] = 5.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    refresh_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    path: Text = "ratelimit.sqlite3"
    host: Text | Annotated[list[Text], Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 3306
    unix_socket: str = ""
    user: str = "policyd"
    password: str = ""
    password_file: str = ""
    database: Text = "policyd"
    tls_ca: str = ""
    tls_verify_name: bool = True
    server_public_key: str = ""
    strict_below: Annotated[float, Meta(ge=0, le=1)] = 0.1
    table: Text = "ratelimit"
    columns: dict[str, str] = {}


class LimitSettings(Section, kw_only=True):
    """`[[limit]]`: how many recipients, per what, in which time."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "default"
    key: Text = "email"
    period: PeriodName = "daily"
    quota: QuotaSetting
    action: str = DEFAULT_ACTION
    quotas: dict[str, QuotaSetting] = {}
    enforce: bool = True
    count: Count = "recipients"


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
    """`[[notify]]`: who is told when an account has reached a share of its quota."""

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


class Keys(Section):
    """`[keys]`: how keys are normalised. Its tables, `[keys.NAME]`, are the options of key plugins."""

    lowercase: bool = True
    default_domain: str = ""


class Settings(Section, kw_only=True):
    """The whole file."""

    state_dir: Text = "/var/lib/ratelimitd"
    timezone: Text = "local"
    week_starts: WeekStart = "sunday"
    count_rejected: bool = True
    journal_sync: JournalSync = "flush"
    user: str = ""
    group: str = ""
    pid_file: str = ""
    server: Server = field(default_factory=Server)
    store: StoreSettings = field(default_factory=StoreSettings)
    keys: Keys = field(default_factory=Keys)
    limit: Annotated[list[LimitSettings], Meta(min_length=1)]
    log: LogSettings = field(default_factory=LogSettings)
    notify: list[NotifySettings] = []
    metrics: Metrics = field(default_factory=Metrics)
    control: Control = field(default_factory=Control)
