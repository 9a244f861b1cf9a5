"""Which is at fault where a server refuses a statement: a record of it, or the table.

A trigger may fail with any error, for one account alone. What becomes of the record, doubts.py says.
"""

from collections.abc import Iterable, Sequence

from ratelimitd.core.rows import Account
from ratelimitd.errors import RecordRefused, StoreError, StoreUnsuitable
from ratelimitd.stores.remarks import Remarks
from ratelimitd.stores.shared.session import DatabaseError, Missing, Session


async def is_record_s(
    session: Session, error: Exception, statement: str, values: Sequence[object], sound: set[str] | None = None
) -> bool:
    """Whether one record may have made a statement fail, rather than the server, another transaction or the table.

    `sound`: statements of this transaction that were found to be sound, which this one is added to. Raises
    DatabaseError. A transaction may be over where it is none's.
    """
    if isinstance(error, UnicodeEncodeError):
        return True
    if isinstance(error, DatabaseError):
        if error.bad_record:
            return True
        if error.conflict or error.elsewhere:
            return False
    elif not isinstance(error, (StoreUnsuitable, Missing)):
        return False
    if sound is not None and statement in sound:
        return True
    is_sound = await _is_sound(session, statement, values)
    if sound is not None and is_sound:
        sound.add(statement)
    return is_sound


async def change(session: Session, statement: str, records: Iterable[Sequence[object]], rows: int = 0) -> None:
    """Begin a transaction, and write each record, to so many `rows` at least. Raises StoreError.

    It is RecordRefused where one is refused for its row's sake.
    """
    await session.begin()
    for values in records:
        try:
            await session.run_whole(statement, values, rows)
        except (StoreError, UnicodeEncodeError) as error:
            if not await is_record_s(session, error, statement, values):
                raise
            raise RecordRefused(str(error)) from error


async def change_row(
    session: Session, remarks: Remarks, account: Account, statement: str, values: Sequence[object]
) -> None:
    """Change an account's row, in a transaction; where the database refuses that, it stays as it is, and that is said.

    Raises StoreError where it is not the row's fault.
    """
    try:
        await session.run_whole(statement, values)
    except (StoreError, UnicodeEncodeError) as error:
        if not await is_record_s(session, error, statement, values):
            raise
        remarks.refused(account.limit, account.key, error)


async def _is_sound(session: Session, statement: str, values: Sequence[object]) -> bool:
    """Whether the server can explain it: it looks at tables and rights for that."""
    try:
        await session.run(f"EXPLAIN {statement}", values)
    except (StoreUnsuitable, Missing):
        return False
    except DatabaseError as error:
        if error.conflict or error.elsewhere:
            raise
        return False
    return True


async def takes_one(session: Session, statement: str, records: Iterable[Sequence[object]]) -> bool:
    """Whether the table takes one of some other records; nothing of it stays. Raises DatabaseError.

    Each is written twice: a row may be inserted where none is changed.
    """
    for values in records:
        await session.save()
        try:
            await session.run_whole(statement, values, 1)
            await session.go_back()
            await session.run(statement, values)
            await session.run(statement, values)
            taken = True
        except (DatabaseError, StoreUnsuitable, Missing) as error:
            if isinstance(error, DatabaseError) and (error.conflict or error.elsewhere):
                raise
            taken = False
        await session.go_back()
        if taken:
            return True
    return False
