"""What an account used, of store and memory together: what is not stored yet is there once, whatever is flushed
meanwhile. One suite for all backends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ratelimitd.core.counters import Counter
from ratelimitd.core.limits import Limit
from ratelimitd.core.rows import Account
from ratelimitd.errors import StoreError
from ratelimitd.stores import Store
from ratelimitd.stores.history import Stood
from ratelimitd.stores.past import PAGE
from tests.core.build import DAY_S, MIDNIGHT, NOON, charge, limit, policy, store_sync
from tests.stores.backends import delta, flush

ALICE = "alice@example.com"


class Node:
    """A policy and its store, at a time that a test says."""

    def __init__(self, store: Store, folder: Path, of: Limit) -> None:
        self.now = float(NOON)
        self.policy = policy(of)
        self.limit = of
        self.sync = store_sync(store, self.policy, folder, lambda: self.now, history_days=30)

    def send(self, recipients: int, key: str = ALICE) -> Counter:
        """Charge an account as a decision does."""
        (meter,) = self.policy.meters
        now = int(self.now)
        counter = meter.find(key, now) or meter.accept(key, None, 0, now)
        charge(self.policy.pending, counter, recipients)
        return counter

    async def windows(self, after: int = 0, key: str = ALICE) -> dict[int, int]:
        found: list[tuple[int, int]] = []
        await self.sync.windows(Account(self.limit.name, key), after, lambda *row: found.append(row))
        assert found == sorted(dict(found).items())
        return dict(found)


@pytest.fixture
async def node(store: Store, tmp_path: Path) -> Node:
    (tmp_path / "state").mkdir()
    made = Node(store, tmp_path / "state", limit(1000, name="daily"))
    await made.sync.begin(0, [])
    return made


async def test_what_is_not_stored_yet_is_there_also_before_the_first_flush(node: Node) -> None:
    assert await node.windows() == {}
    node.send(3)
    assert await node.windows() == {MIDNIGHT: 3}
    assert await node.windows(key="bob@example.com") == {}


async def test_what_is_stored_and_what_is_not_add_up(node: Node) -> None:
    node.send(3)
    assert await node.sync.flush()
    assert await node.windows() == {MIDNIGHT: 3}
    node.send(4)
    assert await node.windows() == {MIDNIGHT: 7}
    node.now = MIDNIGHT + 60.0
    node.send(5)
    assert await node.windows() == {MIDNIGHT: 7, MIDNIGHT + DAY_S: 5}
    assert await node.windows(after=MIDNIGHT) == {MIDNIGHT + DAY_S: 5}
    assert await node.sync.flush()
    assert await node.windows() == {MIDNIGHT: 7, MIDNIGHT + DAY_S: 5}


async def test_the_parts_of_a_sliding_limit_are_there_stored_or_not(store: Store, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    node = Node(store, tmp_path / "state", limit(1000, name="hourly", period="1h", window="sliding"))
    await node.sync.begin(0, [])
    ends = []
    for recipients in (1, 2, 3):
        ends.append(node.send(recipients).expiry)
        node.now += 60
        if recipients == 1:
            assert await node.sync.flush()
    assert await node.windows() == dict(zip(ends, (1, 2, 3), strict=True))


@pytest.mark.parametrize("at", [0, 1])
async def test_what_is_flushed_while_rows_are_read_is_there_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the first page, and before the second one; none is possible before the last."""
    past = node.sync.link.store.past
    await flush(node.sync.link.store, [delta(ALICE, 1, expiry=MIDNIGHT - n * DAY_S) for n in range(1, PAGE + 5)])
    node.send(3)
    assert await node.sync.flush()
    node.send(4)
    read: Callable[[str, str, int, int], object] = past.windows
    pages = 0

    async def windows(limit: str, key: str, after: int, now: int) -> Stood:
        nonlocal pages
        pages += 1
        if pages == at + 1:
            assert await node.sync.flush()
        return await read(limit, key, after, now)  # type: ignore[misc,no-any-return]

    monkeypatch.setattr(past, "windows", windows)
    found = await node.windows()
    assert len(found) == PAGE + 5
    assert found.pop(MIDNIGHT) == 7
    assert set(found.values()) == {1}
    assert pages >= 3


async def test_a_commit_whose_acknowledgement_was_lost_counts_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    store = node.sync.link.store
    node.send(3)
    kept = store.flush

    async def lost(*arguments: object) -> object:
        await kept(*arguments)  # type: ignore[arg-type]
        raise StoreError("the acknowledgement is lost")

    with monkeypatch.context() as patch:
        patch.setattr(store, "flush", lost)
        assert not await node.sync.flush()
    node.send(2)
    assert await node.windows() == {MIDNIGHT: 5}
    assert await node.sync.flush()
    assert await node.windows() == {MIDNIGHT: 5}


async def test_a_store_that_does_not_answer_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> Stood:
        raise StoreError("gone")

    monkeypatch.setattr(node.sync.link.store.past, "windows", fails)
    with pytest.raises(StoreError, match="gone"):
        await node.windows()


async def test_what_others_flush_is_there(node: Node, store: Store) -> None:
    node.send(3)
    await flush(store, [delta(ALICE, 9, expiry=MIDNIGHT)], node="other")
    assert await node.windows() == {MIDNIGHT: 12}
