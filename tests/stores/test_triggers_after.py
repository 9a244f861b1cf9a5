"""Triggers that refuse one kind of change alone, also after it was made: an insert, an update or a delete."""

from collections.abc import Sequence

import pytest

from ratelimitd.core.rows import Account, Delta, Known
from ratelimitd.errors import TableRefuses
from ratelimitd.stores import Store
from ratelimitd.stores.doubts import NOBODY
from ratelimitd.stores.history import Kept
from ratelimitd.stores.shared import blame
from ratelimitd.stores.shared.session import Session
from tests.stores.backends import Backend, delta, flush, row
from tests.stores.test_triggers import LEAVE_OUT, NAMES, refuse


@pytest.mark.parametrize("only", ["", "bob"])
async def test_a_trigger_that_refuses_what_changes_and_takes_what_is_new(
    backend: Backend, store: Store, only: str
) -> None:
    """It refuses every account that there is: no record is at fault. Or one: the others could be changed."""
    await flush(store, [delta(name) for name in NAMES])
    refuse(backend, "another SQLSTATE", only, after="UPDATE")
    if only:
        assert [refused.key for refused, _ in (await flush(store, [delta("bob")])).rejected] == ["bob"]
        return
    with pytest.raises(TableRefuses):
        await flush(store, [delta(name) for name in NAMES])
    assert await store.lookup([Account("daily", NOBODY)], 0) == []


async def test_nothing_of_a_record_stays_that_a_trigger_refuses_afterwards(backend: Backend, store: Store) -> None:
    """SQLite's RAISE(FAIL) undoes nothing."""
    refuse(backend, "another SQLSTATE", after="INSERT")
    flushed = await flush(store, [delta(name) for name in NAMES])
    assert [refused.key for refused, _ in flushed.rejected] == ["bob"]
    assert await store.lookup([Account("daily", "bob")], 0) == []


@pytest.mark.parametrize("case", ["another SQLSTATE", "leave out"])
async def test_a_part_that_may_not_be_deleted_stops_nobody_s_flush(backend: Backend, store: Store, case: str) -> None:
    """Somebody has set the use, so the parts go; the one that stays counts nothing."""
    if case == "leave out" and backend.name not in LEAVE_OUT:
        pytest.skip("its triggers cannot")
    store.configure(10, Kept(0, {"daily"}))
    await flush(store, [part(name, 4000) for name in ("a1", "bob")])
    backend.sql("UPDATE ratelimit SET used = 3, expiry = 4200")
    refuse(backend, case, table="ratelimit_history", after="DELETE", when="BEFORE" if case == "leave out" else "AFTER")
    assert (await flush(store, [part(name, 4500) for name in ("a1", "bob")])).rejected == []
    assert store.remarks.take() == []
    for name in ("a1", "bob"):
        found = await row(store, name, now=1000)
        assert (found.used, [one for one in found.parts if one[1]]) == (4, [(4200, 3), (4500, 1)])


def part(key: str, leave: int, used: int = 1) -> Delta:
    return delta(key, used, expiry=leave)._replace(latest=5000, apart_s=100, now=1000, sliding=True)


@pytest.mark.parametrize("case", ["another SQLSTATE", "a missing function", "a missing table", "rolling all back"])
async def test_what_memory_knows_is_put_back_whatever_a_trigger_says_of_one_account(
    backend: Backend, store: Store, case: str
) -> None:
    """Nothing is stored in a database that was replaced until all is put back."""
    refuse(backend, case)
    await store.restore([Known(delta(name, 7, quota=9), True, 5000) for name in ("a1", "bob", "c1")], 1000)
    assert {"bob" in remark.said for remark in store.remarks.take()} == {True}
    assert [(await row(store, name))[2:6] for name in ("a1", "c1")] == [(9, 9, True, 7)] * 2


@pytest.mark.parametrize("case", ["another SQLSTATE", "a missing function", "rolling all back"])
async def test_a_row_whose_use_may_not_become_less_stops_nobody_s_flush(
    backend: Backend, store: Store, case: str
) -> None:
    store.configure(10, Kept(0, {"daily"}))
    await flush(store, [part(name, 4000, 5) for name in ("a1", "bob")])
    refuse(backend, case, "bob' AND NEW.used < OLD.used AND '' = '", after="UPDATE", when="BEFORE")
    later = [part(name, 4700)._replace(now=4500, latest=6000) for name in ("a1", "bob")]
    assert (await flush(store, later)).rejected == []
    assert (await row(store, "a1", now=4500)).used == 1
    assert {"bob" in remark.said for remark in store.remarks.take()} == {True}


async def test_a_statement_is_looked_at_once_however_many_records_of_it_are_refused(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    async def look(session: Session, statement: str, values: Sequence[object]) -> bool:
        looks.append(statement)
        return await is_sound(session, statement, values)

    is_sound = blame._is_sound
    monkeypatch.setattr(blame, "_is_sound", look)
    await flush(store, [delta("a1")])
    refuse(backend, "a missing function", only="b%")
    flushed = await flush(store, [delta("a1"), *[delta(f"b{number}") for number in range(100)]])
    assert len(flushed.rejected) == 100
    assert (await row(store, "a1")).used == 2
    assert len(looks) == len({*looks}) <= 20  # one for each length that halving comes to
