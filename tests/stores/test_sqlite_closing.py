"""A SQLite file that cannot be opened is let go of at once: no connection waits for the interpreter to close it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimitd.errors import StoreError
from ratelimitd.stores import Store
from ratelimitd.stores.file import DatabaseFile
from ratelimitd.stores.looking import SQLiteLook


@pytest.fixture
def nonsense(tmp_path: Path) -> Path:
    """A file that is no database; SQLite notices as it reads it."""
    path = tmp_path / "ratelimit.sqlite3"
    path.write_text("no database\n" * 1000)
    return path


def held(path: Path) -> Iterator[Path]:
    """What this process has open of a file."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if descriptor.samefile(path):
                yield descriptor
        except OSError:
            continue  # the folder's own is closed


def test_a_connection_that_reads_nothing_is_closed(nonsense: Path) -> None:
    with pytest.raises(sqlite3.DatabaseError) as raised:
        DatabaseFile(nonsense).connect_to_read()
    assert list(held(nonsense)) == [], raised  # which holds what the call had


async def test_a_look_at_no_database_is_closed(nonsense: Path) -> None:
    store: Store = SQLiteLook(nonsense)
    with pytest.raises(StoreError) as raised:
        await store.open()
    assert list(held(nonsense)) == [], raised
