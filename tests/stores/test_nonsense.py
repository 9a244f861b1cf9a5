"""Whatever comes of a server's answer is the store's error: it never ends the daemon."""

import pytest

from ratelimitd.errors import StoreError
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from ratelimitd.stores.shared.session import Session


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, KeyError, OverflowError, AttributeError])
async def test_what_comes_of_an_answer_is_the_store_s_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgreSQLStore(Access((("db", 5432),), "policyd", "secret", "mail"), timeout_s=1)

    async def fail(address: object, timeout_s: float) -> Session:
        raise error

    monkeypatch.setattr(store._servers, "_open", fail)
    with pytest.raises(StoreError, match="makes no sense"):
        await store.lookup([], 0)
