"""The store that `store.backend` names. A database's driver takes time and memory: it is imported where it is used."""

from ratelimitd.config.read import Configuration
from ratelimitd.errors import ConfigError, install
from ratelimitd.stores import Store


def make_store(config: Configuration, *, only_look: bool = False) -> Store:
    """The store as configured, not yet connected. Raises StartError."""
    return _MAKERS[config.settings.store.backend](config, only_look)


def _sqlite(config: Configuration, only_look: bool) -> Store:
    path = config.state_dir / config.settings.store.path
    if only_look:
        from ratelimitd.stores.looking import SQLiteLook

        return SQLiteLook(path, config.names)
    from ratelimitd.stores.sqlite import SQLiteStore

    return SQLiteStore(path, config.names)


def _mysql(config: Configuration, only_look: bool) -> Store:
    from ratelimitd.stores.mysql.access import Access
    from ratelimitd.stores.mysql.store import MySQLLook, MySQLStore

    settings = config.settings.store
    store = MySQLLook if only_look else MySQLStore
    return store(Access.of(settings, config.credentials), config.names, timeout_s=settings.timeout_s)


def _postgresql(config: Configuration, only_look: bool) -> Store:
    try:  # its driver is an extra
        from ratelimitd.stores.postgresql.access import Access
        from ratelimitd.stores.postgresql.store import PostgreSQLLook, PostgreSQLStore
    except ImportError as error:
        wanted = 'the extra "postgresql": ' + install('"ratelimitd[postgresql]"') + ", and libpq (Debian: libpq5)"
        raise ConfigError("store.backend", '"postgresql" without psycopg or libpq', wanted) from error
    settings = config.settings.store
    store = PostgreSQLLook if only_look else PostgreSQLStore
    return store(Access.of(settings, config.credentials), config.names, timeout_s=settings.timeout_s)


_MAKERS = {"sqlite": _sqlite, "mysql": _mysql, "postgresql": _postgresql}
