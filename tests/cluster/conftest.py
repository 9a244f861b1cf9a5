"""Fixtures: nodes that are gone when the test ends."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import Node

MakeNode = Callable[..., Node]


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
