"""What is made of statements is remembered: of short ones, asked for again and again, and of the last long ones."""

import gc
import weakref

from ratelimitd.core.rows import Delta
from ratelimitd.stores import Names, statements
from ratelimitd.stores.dialect import SQLite
from ratelimitd.stores.dialect.base import LONG, remembered


class Text(str):
    """A text that may be referred to weakly."""

    __slots__ = ("__weakref__",)


def test_long_statements_are_remembered_while_a_flush_asks_for_them_and_no_longer() -> None:
    made: list[str] = []

    @remembered
    def marked(statement: str, mark: str) -> str:
        made.append(statement)
        return statement + mark

    short = "SELECT"
    flushes = [Text("x" * (LONG + number)) for number in range(1, 10)]
    kept = [weakref.ref(each) for each in flushes]
    while flushes:
        statement = flushes.pop(0)
        assert [marked(each, "!") for each in (short, statement, statement)] == [
            "SELECT!",
            f"{statement}!",
            f"{statement}!",
        ]
    assert len(made) == 10
    del statement
    made.clear()
    gc.collect()
    assert sum(ref() is not None for ref in kept) == 4


def test_a_statement_with_the_time_of_a_flush_is_a_long_one() -> None:
    one = Delta("default", "alice", 1_900_000_000, 1, 100, 100)
    for delta in (one, one._replace(sliding=True)):
        assert len(SQLite().sql(Names(), statements.upsert(SQLite(), delta))) > LONG
    assert all(len(SQLite().sql(Names(), each(SQLite(), 250))) < LONG for each in (statements.select, statements.odd))
