"""What an administrator is told of a change that the database may have made."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ratelimitd.control.accounts import Accounts
from ratelimitd.control.commands import Refused, Reset, Set
from ratelimitd.core.rows import Account, Grant, Row
from ratelimitd.errors import OutcomeUnknown, StoreError
from ratelimitd.settings import Keys
from ratelimitd.stores.sqlite import SQLiteStore
from tests.core.build import limit, policy, rcpt, store_sync

ALICE = "alice@example.com"


class Cut(SQLiteStore):
    """Its administrator's changes end with `error`, after they were made."""

    def __init__(self, path: Path, error: StoreError) -> None:
        super().__init__(path)
        self._error = error

    async def reset(self, accounts: Sequence[Account], now: int) -> list[Row]:
        await super().reset(accounts, now)
        raise self._error

    async def grant(self, grant: Grant, now: int) -> list[Row]:
        await super().grant(grant, now)
        raise self._error


@pytest.mark.parametrize(
    ("error", "reset", "given"),
    [
        (
            OutcomeUnknown("cut"),
            "it is not known whether the count was reset: cut; when",
            "it is not known whether it is stored: cut; it is in force until the store is back: repeat it then",
        ),
        (
            StoreError("read-only"),
            "nothing is changed: read-only",
            "not stored: read-only; it is in force until the store is back: repeat it then",
        ),
    ],
)
async def test_what_nobody_knows_is_not_said_to_be_undone(
    tmp_path: Path, error: StoreError, reset: str, given: str
) -> None:
    asked = policy(limit(1000))
    store = Cut(tmp_path / "ratelimit.sqlite3", error)
    sync = store_sync(store, asked, tmp_path)
    await sync.begin(0, [])
    rcpt(asked, "bob@example.org")
    accounts = Accounts(asked, sync, Keys())
    with pytest.raises(Refused) as refused:
        await accounts.reset(Reset(ALICE))
    assert str(refused.value).startswith(reset)
    with pytest.raises(Refused) as refused:
        await accounts.set(Set(ALICE, 50, persist=True))
    assert str(refused.value) == given
    await sync.finish(5)
