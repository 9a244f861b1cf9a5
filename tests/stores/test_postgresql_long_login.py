"""A server that has the client compute for half an hour: the login is given up, and few threads go on computing."""

from threading import Event
from typing import Any

import pytest
import trio
import trio.testing

from ratelimitd.stores.postgresql.login import MOST, Login, StillComputing, begin


class Computing:
    """As a connection of libpq: a step lasts until `go_on` is set."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.finished = Event(), Event(), Event()
        self.in_use = False

    def connect_poll(self) -> int:
        self.in_use = True
        self.begun.set()
        self.go_on.wait(60)
        self.in_use = False
        return 0

    def finish(self) -> None:
        assert not self.in_use
        self.finished.set()


async def given_up(server: str, libpq: Any) -> None:
    """A login that is cancelled while it computes."""
    login = Login(server, libpq)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(login.step)
        assert await trio.to_thread.run_sync(libpq.begun.wait, 60)
        nursery.cancel_scope.cancel()
    login.discard()


async def test_a_login_that_computes_can_be_given_up_and_is_closed_when_it_is_over() -> None:
    libpq = Computing()
    await given_up("one", libpq)
    assert not libpq.finished.is_set()
    libpq.go_on.set()
    assert await trio.to_thread.run_sync(libpq.finished.wait, 60)


async def test_few_logins_to_a_server_compute_at_once_and_others_are_as_ever() -> None:
    several = [Computing() for _ in range(MOST)]
    for libpq in several:
        begin("slow")
        await given_up("slow", libpq)
    with pytest.raises(StillComputing):
        begin("slow")
    begin("fast")
    for libpq in several:
        libpq.go_on.set()
        assert await trio.to_thread.run_sync(libpq.finished.wait, 60)
        assert not libpq.in_use


async def test_a_login_that_was_given_up_before_its_thread_began_is_closed_once() -> None:
    libpq: Any = Computing()
    login = Login("two", libpq)
    login.discard()
    login.discard()
    await login.step()
    assert not libpq.begun.is_set()
    assert libpq.finished.is_set()
