"""A reload removes a limit while an administrator's command waits for the store: a clear answer, and nothing raised."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ratelimitd.control.accounts import Accounts
from ratelimitd.control.commands import NO, NotDone, Refused, Reset, Set, Show, Top, Unset
from ratelimitd.control.verbs import Administration
from ratelimitd.settings import Keys
from tests.core.build import NOON, rules
from tests.durability.node import Node, make_limit

ALICE = "alice@example.com"


class Lines:
    """A log's lines about what administrators do."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        """Note a line."""
        self.made.append(", ".join([event, *(f"{name}={value}" for name, value in fields.items())]))

    warning = info


AT = ["lookup", "flush", "grant", "reset"]
"""The operations of the store before which the reload comes."""


@asynccontextmanager
async def reloaded_at(folder: Path, operation: str, *, known: bool) -> AsyncIterator[tuple[Node, Accounts]]:
    """A node with the limits one and two; two is removed when the store is asked for an operation the next time."""
    node = Node(folder, [make_limit("one"), make_limit("two")], lambda: NOON)
    await node.start()
    if known:
        await node.ask(ALICE)
        await node.flush()
    original = getattr(node.store, operation)

    async def hooked(*arguments: Any) -> Any:
        node.policy.configure([make_limit("one")], rules(), int(node.clock()))
        return await original(*arguments)

    setattr(node.store, operation, hooked)
    try:
        yield node, Accounts(node.policy, node.sync, Keys(), lambda: NOON)
    finally:
        await node.stop()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", AT)
async def test_set_is_refused_or_says_what_was_stored(tmp_path: Path, operation: str, known: bool) -> None:
    async with reloaded_at(tmp_path, operation, known=known) as (node, accounts):
        if operation == "flush":
            await node.ask("bob@example.com")
        command = Set(ALICE, 7, persist=True, limit="two")
        if operation == "reset" or (operation == "lookup" and known):  # the store is not asked
            assert (await accounts.set(command)).quota == 7
            return
        with pytest.raises(Refused, match="there is no limit two any more") as caught:
            await accounts.set(command)
        assert caught.value.status == NO
        stored = ("two", ALICE) in await node.rows() and (await node.rows())["two", ALICE].quota == 7
        assert str(caught.value).startswith("stored, but ") == stored == (operation == "grant")


@pytest.mark.parametrize("operation", AT[1:])
async def test_reset_is_refused_or_tells_of_the_limits_that_are_left(tmp_path: Path, operation: str) -> None:
    async with reloaded_at(tmp_path, operation, known=True) as (node, accounts):
        await node.ask("bob@example.com")
        answer = await accounts.reset(Reset(ALICE))
        assert [view.limit for view in answer.limits] == (["one", "two"] if operation == "grant" else ["one"])


@pytest.mark.parametrize("operation", ["flush", "reset"])
async def test_reset_under_a_limit_that_is_removed_meanwhile_says_so(tmp_path: Path, operation: str) -> None:
    async with reloaded_at(tmp_path, operation, known=True) as (node, accounts):
        await node.ask("bob@example.com")
        with pytest.raises(Refused, match=r"^stored, but there is no limit two any more"):
            await accounts.reset(Reset(ALICE, "two"))
        assert (await node.rows())["two", ALICE].used == 0


async def test_reset_of_an_account_that_is_not_in_memory(tmp_path: Path) -> None:
    async with reloaded_at(tmp_path, "lookup", known=True) as (node, accounts):
        for meter in node.policy.meters:
            assert meter.evict(1, node.policy.pending) == 1
        with pytest.raises(Refused, match="there is no limit two any more"):
            await accounts.reset(Reset(ALICE, "two"))


async def test_an_account_that_is_evicted_while_it_is_changed_is_shown_as_stored(tmp_path: Path) -> None:
    async with reloaded_at(tmp_path, "changes", known=True) as (node, accounts):
        loader_accept = node.sync.loader.accept

        def evicting(rows: Any) -> None:
            loader_accept(rows)
            for meter in node.policy.meters:
                meter.evict(10, node.policy.pending)

        node.sync.loader.accept = evicting  # type: ignore[method-assign]
        view = await accounts.set(Set(ALICE, 7, persist=True, limit="two"))
        assert (view.limit, view.quota, view.used) == ("two", 7, 1)
        done = await accounts.reset(Reset(ALICE))
        assert [(view.limit, view.used) for view in done.limits] == [("one", 0), ("two", 0)]


async def test_show_shows_what_is_left(tmp_path: Path) -> None:
    async with reloaded_at(tmp_path, "lookup", known=False) as (_, accounts):
        shown = await accounts.show(Show(ALICE))
        assert {view.limit for view in shown.limits} <= {"one", "two"}
        assert not shown.found


async def test_top_goes_on_with_the_limits_that_are_left(tmp_path: Path) -> None:
    async with reloaded_at(tmp_path, "lookup", known=True) as (node, accounts):
        rankings = accounts.top(Top(None, 5, 0.01))
        assert [found.limit for found in (await anext(rankings)).limits] == ["one", "two"]
        node.policy.configure([make_limit("one"), make_limit("new")], rules(), int(node.clock()))
        assert [found.limit for found in (await anext(rankings)).limits] == ["one", "new"]
        of_new = accounts.top(Top("new", 5, 0.01))
        await anext(of_new)
        node.policy.configure([make_limit("one")], rules(), int(node.clock()))
        with pytest.raises(Refused, match="there is no limit new"):
            await anext(of_new)
        await rankings.aclose()  # type: ignore[attr-defined]


async def answered(accounts: Accounts, lines: Lines, command: Set | Unset | Reset) -> None:
    nothing: Any = None
    log: Any = lines
    async for _ in Administration(accounts, nothing, log, nothing, nothing).answers(command, 0):
        pass


async def test_what_was_stored_before_the_limit_was_gone_is_in_the_log(tmp_path: Path) -> None:
    async with reloaded_at(tmp_path, "grant", known=True) as (_, accounts):
        lines = Lines()
        with pytest.raises(NotDone, match="stored, but "):
            await answered(accounts, lines, Set(ALICE, 7, persist=True, limit="two"))
        (line,) = lines.made
        assert line.startswith(f"a quota may not be changed in the database, uid=0, user=root, key={ALICE}, limit=two")
        assert "reason=stored, but there is no limit two any more" in line


@pytest.mark.parametrize("command", [Reset(ALICE), Set(ALICE, 7, persist=True, limit="two")])
async def test_who_changed_what_is_in_the_log_whatever_fails_afterwards(
    tmp_path: Path, command: Set | Reset, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reloaded_at(tmp_path, "recorded", known=True) as (_, accounts):

        def fails(*_: object, **__: object) -> None:
            raise RuntimeError("no view")

        monkeypatch.setattr(accounts, "_view", fails)
        lines = Lines()
        with pytest.raises(RuntimeError):
            await answered(accounts, lines, command)
        (line,) = lines.made
        assert f"uid=0, user=root, key={ALICE}" in line
        assert "no view" in line
