"""Fixtures: nodes that are gone when the test ends."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.databases import Shared
from tests.cluster.nodes import Node

_numbers = itertools.count(1)
MakeNode = Callable[..., Node]


@pytest.fixture(params=["mariadb", "postgresql"])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """A fresh database of every server that nodes may share."""
    server = request.getfixturevalue(request.param)
    name = f"cluster{next(_numbers)}"
    server.sql(f"CREATE DATABASE {name}")
    yield Shared(server, name)
    server.sql(f"DROP DATABASE {name}" + (" WITH (FORCE)" if request.param == "postgresql" else ""))


@pytest.fixture
def make_node(folder: Path) -> Iterator[MakeNode]:
    """`make_node(store, quota=..., more=..., prefix=...)`: a daemon that is not started yet."""
    with contextlib.ExitStack() as stack:
        made: list[Node] = []

        def make(store: str, **options: Any) -> Node:
            node = Node(folder / f"node{len(made)}", store, **options)
            made.append(node)
            stack.callback(node.kill)
            return node

        yield make
