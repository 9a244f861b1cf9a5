"""Whatever comes of a server's answer is the store's error: it never ends the daemon."""

import pytest

from ratelimitd.errors import StoreError, StoreUnsuitable
from ratelimitd.stores.postgresql.access import Access
from ratelimitd.stores.postgresql.store import PostgreSQLStore
from ratelimitd.stores.shared.addresses import Address
from ratelimitd.stores.shared.session import Servers, Session


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


@pytest.mark.parametrize("error", [RecursionError, ValueError, TypeError])
async def test_a_server_whose_answers_make_no_sense_as_it_is_connected_is_left_for_the_next(
    error: type[Exception],
) -> None:
    asked: list[Address] = []

    async def connect(address: Address, timeout_s: float) -> Session:
        asked.append(address)
        if address == ("broken", 1):
            raise error
        raise StoreUnsuitable("this one was asked")

    servers = Servers([("broken", 1), ("good", 1)], connect, 1, 1)
    with pytest.raises(StoreError, match="this one was asked"):
        async with servers.session():
            pass
    assert asked == [("broken", 1), ("good", 1)]
