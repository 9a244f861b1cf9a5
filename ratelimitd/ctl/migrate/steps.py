"""The steps of a migration: each statement is said when it is done, or with `dry_run` instead of being done."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ratelimitd.ctl.migrate import rights
from ratelimitd.errors import StoreError
from ratelimitd.stores import Names
from ratelimitd.stores.mysql.session import MySQLSession

Say = Callable[[str], None]


class Steps:
    """Runs statements in one session, and says what was done: also what a statement that fails leaves behind."""

    def __init__(self, session: MySQLSession, names: Names, say: Say, *, dry_run: bool) -> None:
        self.session = session
        self.names = names
        self.say = say
        self.dry_run = dry_run
        self._in_transaction = False

    def sql(self, statement: str) -> str:
        """A statement with the configured names."""
        return self.names.apply(statement, "`")

    async def run(self, statement: str) -> None:
        """Run a statement, or say that it would be. Raises StoreError."""
        line = " ".join(statement.split())
        if self.dry_run:
            self.say(f"would run: {line}")
            return
        try:
            await self.session.run(statement)
        except StoreError:
            self.say(f"failed: {line}")
            if self._in_transaction:
                self.say("rolled back: what was done since START TRANSACTION")
            raise
        self.say(f"ran: {line}")
        if line in ("START TRANSACTION", "COMMIT"):
            self._in_transaction = line != "COMMIT"

    async def run_all(self, statements: Iterable[str]) -> None:
        """Run several, in order. Raises StoreError."""
        for statement in statements:
            await self.run(statement)

    def refuse(self, reason: str) -> None:
        """Raise StoreError: nothing was done. In a dry run only say so."""
        if not self.dry_run:
            raise StoreError(reason)
        self.say(f"would be refused: {reason}")

    async def check_rights(self, needed: Mapping[str, Iterable[str]], reason: str = "the account lacks rights") -> None:
        """Refuse where the account lacks some of the `needed` rights by table, with the GRANT that gives them."""
        if lacking := await rights.lacking(self.session, needed):
            self.refuse(f"{reason}; an administrator must run: {lacking}")

    async def ask(self, select: str, arguments: Sequence[object] = ()) -> Sequence[Sequence[object]]:
        """The rows of a SELECT, with the configured names. Raises StoreError."""
        return await self.session.run(self.sql(select), arguments)
