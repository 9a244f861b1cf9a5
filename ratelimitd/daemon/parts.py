"""Makes of a configuration what the daemon works with: its log, its store, its bounds."""

from ratelimitd.config.read import Configuration
from ratelimitd.core.policy import Rules
from ratelimitd.daemon.start import connections_for
from ratelimitd.errors import StartError
from ratelimitd.log.log import Log
from ratelimitd.log.sinks import FileSink, Sink, StderrSink, SyslogSink
from ratelimitd.server.connections import Bounds
from ratelimitd.stores import Store
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.mysql.store import MySQLStore
from ratelimitd.stores.sqlite import SQLiteStore


def open_log(config: Configuration) -> Log:
    """The log as configured. Raises StartError."""
    settings = config.settings.log
    log = Log(open_sinks(config), settings.format, settings.level)
    log.with_limit = len(config.limits) > 1
    return log


def open_sinks(config: Configuration) -> list[Sink]:
    """Where the log's lines go. Raises StartError."""
    settings = config.settings.log
    sinks: list[Sink] = []
    if settings.file:
        path = config.path(settings.file)
        try:
            sinks.append(FileSink(path))
        except OSError as error:
            raise StartError(f"log.file: {path}: {error.strerror}") from error
    if settings.syslog:
        sinks.append(SyslogSink(settings.syslog, settings.ident, settings.facility, settings.max_backlog_bytes))
    if settings.stderr:
        sinks.append(StderrSink())
    return sinks


def open_store(config: Configuration) -> Store:
    """The store as configured, not yet connected. Raises StartError."""
    settings = config.settings.store
    if settings.backend == "mysql":
        return MySQLStore(Access.of(settings, config.credentials), config.names, timeout_s=settings.timeout_s)
    return SQLiteStore(config.state_dir / settings.path, config.names)


def bounds(config: Configuration) -> Bounds:
    """What clients may take; fewer connections where there are too few file descriptors. Raises StartError."""
    server = config.settings.server
    return Bounds(
        config.allow,
        connections_for(server.max_connections),
        server.max_request_bytes,
        server.request_timeout_s,
        config.unix_uids,
    )


def rules(config: Configuration) -> Rules:
    """What is said of all limits together; `strict_below` only where other nodes may charge an account too."""
    store = config.settings.store
    return Rules(
        count_rejected=config.settings.count_rejected,
        failure_reply=config.failure_action.fixed,
        strict_below=store.strict_below if store.backend == "mysql" else 0.0,
    )
