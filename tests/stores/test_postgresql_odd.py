"""What stands in a PostgreSQL table whose columns somebody gave other types: one row's nonsense is that row's alone."""

import itertools
from collections.abc import Iterator

import pytest

from ratelimitd.core.rows import Account
from ratelimitd.errors import StoreUnsuitable
from ratelimitd.stores.postgresql.values import row as read
from tests.instances.postgresql import PostgreSQL
from tests.stores.backends import Backend, delta, flush, postgresql_backend

_numbers = itertools.count(1)


@pytest.fixture
def there(postgresql: PostgreSQL) -> Iterator[Backend]:
    """A fresh database."""
    name = f"odd{next(_numbers)}"
    postgresql.sql(f"CREATE DATABASE {name}")
    yield postgresql_backend(postgresql, name)
    postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.real
@pytest.mark.parametrize("value", ["(repeat('[', 1500) || repeat(']', 1500))", '\'{"a": [1, "}"]}\''])
async def test_a_nested_value_is_its_row_s_fault(there: Backend, value: str) -> None:
    store = there.make()
    await store.open()
    await flush(store, [delta("alice"), delta("mallory")])
    there.sql("DROP VIEW view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit")
    there.sql("ALTER TABLE ratelimit ALTER persist DROP DEFAULT, ALTER persist TYPE JSONB USING to_jsonb(persist)")
    there.sql(f"UPDATE ratelimit SET persist = {value}::jsonb WHERE sender = 'mallory'")
    found = await store.lookup([Account("daily", "alice"), Account("daily", "mallory")], 0)
    assert [row.key for row in found] == ["alice"]
    (remark,) = store.remarks.take()
    assert "key mallory" in remark.said
    assert "persist is " in remark.said
    await store.close()


@pytest.mark.real
@pytest.mark.parametrize("kind", ["BOOLEAN", "JSONB"])
async def test_a_table_whose_persist_takes_no_number_is_refused(there: Backend, kind: str) -> None:
    store = there.make()
    await store.open()
    await store.close()
    there.sql("DROP VIEW view_ratelimit; DROP TRIGGER ratelimit_touched ON ratelimit")
    there.sql(f"ALTER TABLE ratelimit DROP COLUMN persist, ADD persist {kind}")
    with pytest.raises(StoreUnsuitable, match=f"its column persist is {kind.lower()}, not smallint"):
        await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ('["a", "b", 1, null, true, 1.5]', ["a", "b", 1, None, True, 1.5]),
        ('["a", [1, [2]], {"x": "]"}, 3]', ["a", "[1, [2]]", '{"x": "]"}', 3]),
        ('["a,]\\"[", 1e400, [], "b"]', ['a,]"[', "1e400", "[]", "b"]),
    ],
)
def test_a_row_has_as_many_values_as_it_has_columns(data: str, values: list[object]) -> None:
    assert read(data.encode()) == values


def test_a_value_of_any_depth_is_one_value() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert [type(value) for value in read(f'["a", {deep}, 7]'.encode())] == [str, str, int]
