"""How the databases differ in SQL: the one place that says it. What the statements are, statements.py says, for all."""

from ratelimitd.stores.dialect.base import Dialect as Dialect
from ratelimitd.stores.dialect.sqlite import SQLite as SQLite
from ratelimitd.stores.dialect.typed import MySQL as MySQL
from ratelimitd.stores.dialect.typed import PostgreSQL as PostgreSQL
