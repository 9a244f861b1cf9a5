"""Carries out the commands of the control socket in a running daemon. Whatever changes something is logged."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

from ratelimitd.control import record
from ratelimitd.control.accounts import Accounts
from ratelimitd.control.answers import Answer, DumpWritten, Reloaded
from ratelimitd.control.commands import (
    NO,
    AnsweredOnce,
    AnyCommand,
    Doctor,
    Dump,
    History,
    PrintDump,
    Refused,
    Reload,
    Reset,
    Set,
    Show,
    Status,
    Top,
    Unset,
)
from ratelimitd.control.dump import CacheDump
from ratelimitd.control.record import Asker, Edit, Edited
from ratelimitd.control.status import DaemonStatus
from ratelimitd.errors import RatelimitdError
from ratelimitd.log.log import Log

NAME_TIMEOUT_S = 2.0
"""How long the name of the user who asks is looked for."""


class Administration:
    """Gives the answers to commands.

    `reload` applies the configuration and gives the changed settings that need a restart. It raises RatelimitdError.
    """

    def __init__(
        self,
        accounts: Accounts,
        status: DaemonStatus,
        log: Log,
        dump: CacheDump,
        reload: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._accounts = accounts
        self._status = status
        self._log = log
        self._dump = dump
        self._reload = reload

    async def answers(self, command: AnyCommand, uid: int) -> AsyncGenerator[Answer, None]:
        """The answer to a command of a user; to `top` one after the other. Raises Refused."""
        if isinstance(command, Top):
            async for ranking in self._accounts.top(command):
                yield ranking
        else:
            yield await self._answer(command, uid)

    async def _answer(self, command: AnsweredOnce, uid: int) -> Answer:
        match command:
            case Status():
                return self._status.answer()
            case Show():
                return await self._accounts.show(command)
            case History():
                return await self._accounts.history(command)
            case Set() | Unset() | Reset():
                return await self._edit(command, await _asker(uid))
            case Dump():
                return await self._dumped()
            case PrintDump():
                return await self._dump.most(command.count)
            case Reload():
                return await self._reloaded(await _asker(uid))
            case Doctor():
                return await self._status.evidence()

    async def _edit(self, command: Edit, asker: Asker) -> Edited:
        return await record.carried_out(self._log, asker, command, self._accounts.edit)

    async def _dumped(self) -> DumpWritten:
        try:
            return DumpWritten(str(await self._dump.write()))
        except RatelimitdError as error:
            raise Refused(f"the cache cannot be dumped: {error}", NO) from error

    async def _reloaded(self, asker: Asker) -> Reloaded:
        record.asked(self._log, asker, "a reload is asked for")
        try:
            return Reloaded(await self._reload())
        except RatelimitdError as error:
            raise Refused(f"nothing is changed: {error}") from error


async def _asker(uid: int) -> Asker:
    """The user; a directory that does not answer in time does not keep anybody from what he asks."""
    with trio.move_on_after(NAME_TIMEOUT_S):
        return await trio.to_thread.run_sync(Asker.of, uid, abandon_on_cancel=True)
    return Asker(uid, "unknown")
