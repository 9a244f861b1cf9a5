"""Carries out the commands of the control socket in a running daemon. Whatever changes something is logged."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from ratelimitd.control.accounts import Accounts
from ratelimitd.control.answers import AccountView, Answer, CountsReset, DumpWritten, QuotaSet, Reloaded
from ratelimitd.control.commands import (
    NO,
    AnsweredOnce,
    AnyCommand,
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

    `dump` writes the cache and gives the file; `reload` applies the configuration and gives the changed settings
    that need a restart. Both raise RatelimitdError.
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

    async def answers(self, command: AnyCommand) -> AsyncGenerator[Answer, None]:
        """The answer to a command; to `top` one after the other. Raises Refused."""
        if isinstance(command, Top):
            async for ranking in self._accounts.top(command):
                yield ranking
        else:
            yield await self._answer(command)

    async def _answer(self, command: AnsweredOnce) -> Answer:
        match command:
            case Status():
                return self._status.answer()
            case Show():
                return await self._accounts.show(command)
            case Set():
                return await self._set(command)
            case Reset():
                return await self._reset(command)
            case Dump():
                return await self._dumped()
            case Reload():
                return await self._reloaded()
            case Doctor():
                return await self._status.evidence()

    async def _set(self, command: Set) -> QuotaSet:
        account = await self._accounts.set(command)
        lasting = "for good" if command.persist else "until the period ends"
        self._log.info("a quota is set", **_of(account), quota=command.quota or "unlimited", lasting=lasting)
        return account

    async def _reset(self, command: Reset) -> CountsReset:
        answer = await self._accounts.reset(command)
        for account in answer.limits:
            self._log.info("a count is reset", **_of(account))
        return answer

    async def _dumped(self) -> DumpWritten:
        try:
            return DumpWritten(str(await self._dump()))
        except RatelimitdError as error:
            raise Refused(f"the cache cannot be dumped: {error}", NO) from error

    async def _reloaded(self) -> Reloaded:
        try:
            return Reloaded(await self._reload())
        except RatelimitdError as error:
            raise Refused(f"nothing is changed: {error}") from error


def _of(account: AccountView) -> dict[str, str]:
    return {"key": account.key, "limit": account.limit}
