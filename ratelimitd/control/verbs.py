"""What a running daemon does with the commands of its control socket. Whatever changes something is logged."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from ratelimitd.control.accounts import Accounts
from ratelimitd.control.commands import (
    NO,
    Answer,
    Command,
    Doctor,
    Dump,
    Refused,
    Reload,
    Reset,
    Set,
    Show,
    Status,
    Top,
)
from ratelimitd.control.status import DaemonStatus
from ratelimitd.errors import RatelimitdError
from ratelimitd.log.log import Log


class Administration:
    """Gives the answers to commands.

    `dump` writes the cache; `reload` obeys the configuration anew and gives what needs a new start. Both raise
    RatelimitdError.
    """

    def __init__(
        self,
        accounts: Accounts,
        status: DaemonStatus,
        log: Log,
        dump: Callable[[], Awaitable[Path]],
        reload: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._accounts = accounts
        self._status = status
        self._log = log
        self._dump = dump
        self._reload = reload

    async def answers(self, command: Command) -> AsyncIterator[Answer]:
        """What a command is answered, once or again and again. Raises Refused."""
        if isinstance(command, Top):
            async for ranking in self._accounts.top(command):
                yield ranking
        else:
            yield await self._answer(command)

    async def _answer(self, command: Command) -> Answer:
        match command:
            case Status():
                return self._status.answer()
            case Show():
                return await self._accounts.show(command)
            case Set():
                answer = await self._accounts.set(command)
                lasting = "for good" if command.persist else "until the period ends"
                self._log.info("a quota is set", **_of(answer), quota=command.quota or "unlimited", lasting=lasting)
                return answer
            case Reset():
                answer = await self._accounts.reset(command)
                for account in answer["limits"]:
                    self._log.info("a count is reset", **_of(account))
                return answer
            case Dump():
                try:
                    return {"file": str(await self._dump())}
                except RatelimitdError as error:
                    raise Refused(f"the cache cannot be dumped: {error}", NO) from error
            case Reload():
                try:
                    return {"needs_start": await self._reload()}
                except RatelimitdError as error:
                    raise Refused(f"nothing is changed: {error}") from error
            case Doctor():
                return await self._status.evidence()
        raise Refused(f"{type(command).__name__.lower()} is not known here")


def _of(account: Answer) -> Answer:
    return {"key": account["key"], "limit": account["limit"]}
