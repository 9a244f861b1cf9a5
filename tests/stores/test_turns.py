"""While a look-up waits for its thread, no other thread keeps the interpreter for long; afterwards all is as before."""

import sqlite3
import sys
import threading
from pathlib import Path

import pytest
import trio

from ratelimitd.core.rows import Account
from ratelimitd.stores.sqlite import SQLiteStore
from ratelimitd.stores.turns import TURN_S
from tests.core.build import NOON

ALICE = Account("default", "alice@example.com")


@pytest.fixture
async def store(tmp_path: Path) -> SQLiteStore:
    store = SQLiteStore(tmp_path / "ratelimit.sqlite3")
    await store.open()
    return store


async def test_turns_are_short_while_accounts_are_looked_up_and_only_then(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_s = sys.getswitchinterval()
    lookup = SQLiteStore._lookup
    begun: list[float] = []
    begins, gates = [trio.Event(), trio.Event()], [threading.Event(), threading.Event()]

    def held(self: SQLiteStore, *given: object) -> object:
        number = len(begun)
        begun.append(sys.getswitchinterval())
        trio.from_thread.run_sync(begins[number].set)
        gates[number].wait()
        return lookup(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SQLiteStore, "_lookup", held)
    with trio.CancelScope() as out_of_time:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.lookup, [ALICE], NOON)
            nursery.start_soon(store.lookup, [ALICE], NOON)
            await begins[0].wait()
            gates[0].set()
            await begins[1].wait()
            assert sys.getswitchinterval() == pytest.approx(TURN_S)
            out_of_time.cancel()
    assert sys.getswitchinterval() == usual_s
    gates[1].set()
    assert begun == pytest.approx([TURN_S, TURN_S])
    await store.close()


async def test_turns_are_as_before_where_a_look_up_fails(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    usual_s = sys.getswitchinterval()

    def failing(*given: object) -> object:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SQLiteStore, "_lookup", failing)
    with pytest.raises(Exception, match="disk I/O error"):
        await store.lookup([ALICE], NOON)
    assert sys.getswitchinterval() == usual_s
    await store.close()
