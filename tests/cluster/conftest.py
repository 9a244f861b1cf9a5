"""Fixtures: nodes that are gone when the test ends."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import Node

MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(folder: Path) -> Iterator[MakeNode]:
    """`make_node(store, quota=..., more=...)`: a daemon that is not started yet."""
    with contextlib.ExitStack() as stack:
        made: list[Node] = []

        def make(store: str, quota: int = 1_000_000, more: str = "") -> Node:
            node = Node(folder / f"node{len(made)}", store, quota=quota, more=more)
            made.append(node)
            stack.callback(node.kill)
            return node

        yield make
