"""What administrators change is a line in the log each: who, what, from, to, until, why.

The texts stand in contrib/doc/operations.md as they are printed.
"""

import pwd
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ratelimitd.control.answers import AccountView, CountsReset, QuotaChanged, QuotaSet, QuotasUnset
from ratelimitd.control.commands import NotDone, Refused, Reset, Set, Unset
from ratelimitd.core.limits import UNLIMITED
from ratelimitd.log.log import Log

Edit = Set | Unset | Reset
"""A command that changes accounts."""
Edited = QuotaSet | QuotasUnset | CountsReset
"""What it is answered with."""


class Asker(NamedTuple):
    """Who asked: a user of this machine."""

    uid: int
    name: str

    @classmethod
    def of(cls, uid: int) -> "Asker":
        """The user with this uid. It may ask a directory over the network, and take as long as that."""
        try:
            return cls(uid, pwd.getpwuid(uid).pw_name)
        except KeyError:
            return cls(uid, "unknown")


async def carried_out(log: Log, asker: Asker, command: Edit, edit: Callable[[Edit], Awaitable[Edited]]) -> Edited:
    """What a change is answered with; it is logged, whatever becomes of it. Raises what `edit` does."""
    try:
        answer = await edit(command)
    except NotDone as error:
        _failed(log, asker, command, str(error))
        raise
    except Refused:  # nothing was done
        raise
    except Exception as error:  # a fault of ours, perhaps after the store took it
        _failed(log, asker, command, repr(error))
        raise
    _edited(log, asker, command, answer)
    return answer


def _edited(log: Log, asker: Asker, command: Edit, answer: Edited) -> None:
    """Log what was changed, a line for each account."""
    match answer:
        case QuotaSet():
            until = "for good" if answer.persistent else answer.until_at or answer.reset_at
            _say(log, "a quota is set", asker, command, answer, _quotas(answer) | {"until": until})
        case QuotasUnset():
            for account in answer.limits:
                _say(log, "a quota is unset", asker, command, account, _quotas(account))
        case CountsReset():
            for count in answer.limits:
                _say(log, "a count is reset", asker, command, count, {"from": count.was, "to": count.used})


def _failed(log: Log, asker: Asker, command: Edit, reason: str) -> None:
    """Log a change that was tried, and of which something may have been done."""
    what = f"a {'count' if isinstance(command, Reset) else 'quota'} may not be changed in the database"
    log.warning(what, **_who(asker), key=command.key, **({"limit": command.limit} if command.limit else {}),
                **({"to": command.quota or "unlimited"} if isinstance(command, Set) else {}),
                reason=reason, **_why(command))  # fmt: skip


def asked(log: Log, asker: Asker, what: str) -> None:
    """Log something else that somebody had done."""
    log.info(what, **_who(asker))


def _say(log: Log, event: str, asker: Asker, command: Edit, account: AccountView, fields: dict[str, object]) -> None:
    log.info(event, **_who(asker), key=account.key, limit=account.limit, **fields, **_why(command))


def _who(asker: Asker) -> dict[str, object]:
    return {"uid": asker.uid, "user": asker.name}


def _why(command: Edit) -> dict[str, object]:
    return {"why": command.reason} if command.reason else {}


def _quotas(account: QuotaChanged) -> dict[str, object]:
    return {"from": _shown(account.was), "to": _shown(account.quota)}


def _shown(quota: int | None) -> object:
    return "unlimited" if quota is None or quota == UNLIMITED else quota
