"""The lines of Postfix's configuration that have this service asked as it should be: behind what rejects, before what
permits. What is wrong is not said here.
"""

import re
from collections.abc import Iterable, Sequence

from ratelimitd.ctl.answers import Line
from ratelimitd.ctl.doctor.postconf import Smtpd
from ratelimitd.ctl.doctor.restrictions import (
    AT_RCPT,
    BEFORE_ALL_OTHERS,
    DEFAULT_ACTION,
    ENDS,
    ETRN,
    PERMITS,
    SERVICE,
    Use,
    items_of,
    met_later,
)

SENDER, RECIPIENT = "smtpd_sender_restrictions", "smtpd_recipient_restrictions"
UNLISTED = "reject_unlisted_recipient"
"""What Postfix checks last of all unless it is asked to do so earlier: whether the recipient is one of its own."""
OPTIONS = {"timeout": "10s", "default_action": "DUNNO"}
MAIN, MASTER = "main.cf", "master.cf"
_REJECTS = re.compile(r"reject_\w+")


def service(address: str, options: Iterable[tuple[str, str]] = ()) -> str:
    """How a list asks at an address; options that harm are left out."""
    kept = {
        name: value
        for name, value in options
        if name != "try_limit" and (name, value) != ("default_action", DEFAULT_ACTION)
    }
    said = "".join(f", {name}={value}" for name, value in (OPTIONS | kept).items())
    return f"{SERVICE} {{ {address}{said} }}"


def line(smtpd: Smtpd, name: str, value: str) -> Line:
    """The line that sets a parameter of an smtpd: in master.cf where it is set there already, else in main.cf."""
    return option(smtpd, name, value) if name in smtpd.overrides else Line(MAIN, "", f"{name} = {value}".rstrip())


def option(smtpd: Smtpd, name: str, value: str) -> Line:
    """The line of master.cf that sets a parameter of an smtpd alone."""
    return Line(MASTER, smtpd.name, f"  -o {{ {name} = {value} }}" if value else f"  -o {name}=")


def wired(smtpd: Smtpd, address: str, deserted: Iterable[str] = ()) -> str:
    """The value of smtpd_sender_restrictions that asks at an address, and at those no more where nobody listens."""
    items = items_of(smtpd, SENDER)
    for other in deserted:
        items = _without(other, items)
    return _placed(smtpd, SENDER, service(address), items)


def right(use: Use, address: str = "") -> list[Line]:
    """The lines that have the service asked where it should be, in place of a use that is not right; `address`: at this
    one in place of the use's."""
    smtpd, name = use.smtpd, use.list_name
    asked = service(address or use.address, use.options.items())
    at_rcpt = smtpd.is_on("smtpd_delay_reject")
    if name not in (*BEFORE_ALL_OTHERS, ETRN) and (at_rcpt or name not in AT_RCPT):
        return [line(smtpd, name, _placed(smtpd, name, asked, _without(use.address, items_of(smtpd, name))))]
    target = SENDER if at_rcpt else RECIPIENT
    there = _placed(smtpd, target, asked, _without(use.address, items_of(smtpd, target)))
    return [
        line(smtpd, name, ", ".join(_without(use.address, items_of(smtpd, name)))),
        line(smtpd, target, there),
    ]


def _without(address: str, items: Sequence[str]) -> list[str]:
    """The restrictions without those that ask at an address."""
    asks = re.compile(rf"{SERVICE} \{{?\s*{re.escape(address)}(?![^\s,}}])")
    return [item for item in items if not asks.match(item)]


def _placed(smtpd: Smtpd, name: str, asked: str, items: Sequence[str]) -> str:
    """A list with the service: behind what rejects in it or later, before the first restriction that permits."""
    end = next((i for i, item in enumerate(items) if item.split()[0] in ENDS), len(items))
    met, rest = list(items[:end]), list(items[end:])
    permit = next((i for i, item in enumerate(met) if item.startswith(PERMITS)), end)
    before = met[:permit]
    rejects = [item for item in met[permit:] if _REJECTS.match(item)]
    if name in (SENDER, RECIPIENT):
        rejects += [item for _, item in met_later(smtpd, name) if item not in (*before, *rejects)]
        if UNLISTED not in (*before, *rejects) and smtpd.parameters.get("smtpd_reject_unlisted_recipient") != "no":
            rejects.append(UNLISTED)
    between = [item for item in met[permit:] if item not in rejects]
    return ", ".join([*before, *rejects, asked, *between, *rest])
