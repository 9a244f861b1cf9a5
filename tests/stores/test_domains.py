"""Rows of domains, live on every store: in memory, for new accounts, on two nodes, and when they are gone again."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ratelimitd.control.accounts import Accounts
from ratelimitd.control.commands import NO, Refused, Reset, Set, Show, Unset
from ratelimitd.core.limits import Limit
from ratelimitd.core.policy import Policy
from ratelimitd.core.rows import Account
from ratelimitd.settings import Keys
from ratelimitd.stores import Store
from ratelimitd.sync.schedule import StoreSync
from tests.core.build import limit, policy, store_sync
from tests.stores.backends import Backend, row

ALICE, BOB, OTHER = "alice@example.org", "bob@example.org", "alice@example.net"
DOMAIN = "@example.org"


class Node:
    """A daemon's memory and its store."""

    def __init__(self, asked: Policy, sync: StoreSync) -> None:
        self.asked = asked
        self.sync = sync
        self.accounts = Accounts(asked, sync, Keys())

    async def quota(self, key: str = ALICE) -> int:
        """The quota of an account, which is looked up where it is not in memory."""
        (meter,) = [meter for meter in self.asked.meters if meter.limit.name == "daily"]
        if meter.find(key, int(time.time())) is None:
            await self.sync.loader.look_up([Account("daily", key)])
        counter = meter.find(key, int(time.time()))
        assert counter is not None
        return counter.quota


@asynccontextmanager
async def node(backend: Backend, folder: Path, *limits: Limit) -> AsyncIterator[Node]:
    await trio.Path(folder).mkdir(exist_ok=True)
    asked = policy(*(limits or (daily(),)))
    sync = store_sync(backend.make(), asked, folder)
    await sync.begin(0, [])
    yield Node(asked, sync)
    await sync.finish(5)


def daily() -> Limit:
    return limit(50, name="daily", quotas={"boss@example.org": 500, "@example.net": 70})


def insert(backend: Backend, sender: str = DOMAIN, quota: int = 20, persist: int = 1) -> None:
    values = f"'{sender}', 'daily', {quota}, {persist}"
    backend.sql(f"INSERT INTO ratelimit (sender, limit_name, quota, persist) VALUES ({values})")


async def test_it_holds_for_new_accounts_at_once(backend: Backend, store: Store, tmp_path: Path) -> None:
    insert(backend)
    async with node(backend, tmp_path) as one:
        assert await one.quota(ALICE) == 20
        assert await one.quota("boss@example.org") == 500
        assert await one.quota(OTHER) == 70
        assert set(one.asked.meters[0].counters) == {ALICE, "boss@example.org", OTHER}


@pytest.mark.parametrize("sender", [DOMAIN, "@Example.ORG"])
async def test_it_holds_on_every_node_for_accounts_in_memory_once_refreshed_and_ends_so(
    backend: Backend, store: Store, tmp_path: Path, sender: str
) -> None:
    async with node(backend, tmp_path / "a") as a, node(backend, tmp_path / "b") as b:
        for one in (a, b):
            await one.sync.refresh()
            assert [await one.quota(key) for key in (ALICE, BOB, OTHER)] == [50, 50, 70]
        insert(backend, sender)
        for one in (a, b):
            await one.sync.refresh()
            assert [await one.quota(key) for key in (ALICE, BOB, OTHER)] == [20, 20, 70]
        backend.sql("UPDATE ratelimit SET quota = 30")
        for one in (a, b):
            await one.sync.refresh()
            assert await one.quota() == 30
        backend.sql("UPDATE ratelimit SET persist = 0")
        for one in (a, b):
            await one.sync.refresh()
            assert await one.quota() == 50


async def test_a_row_that_is_deleted_is_noticed(backend: Backend, store: Store, tmp_path: Path) -> None:
    insert(backend)
    async with node(backend, tmp_path) as one:
        await one.sync.refresh()
        assert await one.quota() == 20
        backend.sql("DELETE FROM ratelimit")
        await one.sync.refresh()
        assert await one.quota() == 50


async def test_a_row_without_persist_is_none(backend: Backend, store: Store, tmp_path: Path) -> None:
    insert(backend, persist=0)
    async with node(backend, tmp_path) as one:
        assert await one.quota() == 50


async def test_a_row_of_a_domain_means_nothing_where_domains_are_counted_and_that_is_said(
    backend: Backend, store: Store, tmp_path: Path
) -> None:
    insert(backend)
    domains = limit(50, name="daily", key="domain")
    async with node(backend, tmp_path, domains) as one:
        assert await one.quota("example.org") == 50
        (remark,) = (await store.survey()).remarks([domains])
        why = "the keys of this limit are domains: a row for one is written without @"
        assert remark == f"limit daily: the row of @example.org: {why}"
    assert list((await store.survey()).remarks([daily()])) == []


async def test_set_show_and_unset_of_a_domain(backend: Backend, store: Store, tmp_path: Path) -> None:
    async with node(backend, tmp_path / "a") as a, node(backend, tmp_path / "b") as b:
        await b.sync.refresh()
        assert [await one.quota() for one in (a, b)] == [50, 50]
        given = await a.accounts.set(Set("@Example.org", 20, persist=True))
        assert (given.key, given.quota, given.was, given.domain, given.source) == (
            DOMAIN, 20, 50, True, "database, persistent",
        )  # fmt: skip
        assert await a.quota() == 20
        await b.sync.refresh()
        assert await b.quota() == 20
        (view,) = (await b.accounts.show(Show(ALICE))).limits
        assert (view.quota, view.source) == (20, "database, row @example.org")
        shown = await b.accounts.show(Show(DOMAIN))
        assert (shown.found, shown.limits[0].quota) == (True, 20)
        assert DOMAIN not in b.asked.meters[0].counters
        with pytest.raises(Refused):
            await a.accounts.reset(Reset(DOMAIN))
        (taken,) = (await b.accounts.unset(Unset(DOMAIN))).limits
        assert (taken.quota, taken.was, taken.source) == (50, 20, "limit daily")
        assert await b.quota() == 50
        await a.sync.refresh()
        assert await a.quota() == 50
        with pytest.raises(Refused) as refused:
            await b.accounts.unset(Unset(DOMAIN))
        assert refused.value.status == NO


async def test_a_quota_until_a_time_holds_on_every_node_also_after_a_restart(
    backend: Backend, store: Store, tmp_path: Path
) -> None:
    async with node(backend, tmp_path / "a") as a, node(backend, tmp_path / "b") as b:
        await b.sync.refresh()
        assert [await one.quota() for one in (a, b)] == [50, 50]
        end = (await a.accounts.set(Set(ALICE, 90, for_s=3 * 86_400))).until
        await b.sync.refresh()
        for one in (a, b):
            assert await one.quota() == 90
            for days, quota in ((2, 90), (4, 50)):
                found = one.asked.meters[0].find(ALICE, int(time.time()) + days * 86_400)
                assert found is not None
                assert found.quota == quota
    async with node(backend, tmp_path / "a") as again:
        assert await again.quota() == 90
        assert (await again.accounts.show(Show(ALICE))).limits[0].until == end
        await again.accounts.unset(Unset(ALICE))
        assert await again.quota() == 50
    assert (await row(store, ALICE)).until == 0


async def test_a_domain_s_quota_is_for_good_or_refused(backend: Backend, store: Store, tmp_path: Path) -> None:
    async with node(backend, tmp_path) as one:
        for command in (Set(DOMAIN, 20), Set(DOMAIN, 20, for_s=60), Set(DOMAIN, 20, persist=True, for_s=60)):
            with pytest.raises(Refused, match="--persist"):
                await one.accounts.set(command)
        assert await store.lookup([Account("daily", DOMAIN)], 0) == []


async def test_a_replaced_database_gets_what_memory_knows(backend: Backend, store: Store, tmp_path: Path) -> None:
    insert(backend)
    async with node(backend, tmp_path) as one:
        await one.quota()
        backend.sql("DELETE FROM ratelimit")
        await one.sync.loader.put_back.everything(10)
        stored = await row(store, DOMAIN)
        assert (stored.quota, stored.persist, stored.used, stored.expiry) == (20, True, 0, 0)
