"""Where users log in and this service is not asked: which line of main.cf or master.cf is at fault, and its fix."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from ratelimitd.ctl.answers import Fault
from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd
from ratelimitd.ctl.doctor.restrictions import ENDS, PERMITS, RIGHT, WORD, Use, uses_of

LIST = RIGHT.partition(" ")[0]
_INSIDE = re.compile(r"\b(smtpd_\w+_restrictions)\s*=\s*check_policy_service")
"""A parameter in the value of another: its line begins with a blank."""


def examine(postfix: Postfix, is_ours: Callable[[Use], bool], address: str) -> Iterator[Fault]:
    """The faults. `is_ours` tells whether a use asks us; `address` is how we are asked."""
    for smtpd in postfix.smtpds:
        if smtpd.is_on("smtpd_sasl_auth_enable") and not any(map(is_ours, uses_of(smtpd))):
            others = sorted({use.address for use in uses_of(smtpd)})
            asked = f"; it asks {', '.join(others)}" if others else ""
            why, fix = _why(postfix, smtpd, is_ours, address)
            what = f"the service {smtpd.name}, where users log in, never asks ratelimitd at {address}{asked}{why}"
            yield Fault("not-wired", what, fix)


def _why(postfix: Postfix, smtpd: Smtpd, is_ours: Callable[[Use], bool], address: str) -> tuple[str, str]:
    """What keeps it from asking us, as far as that is seen, and the fix."""
    block = f"in master.cf, under {smtpd.name}"
    for name, value in smtpd.overrides.items():
        if any(map(is_ours, uses_of(_without(smtpd, name, postfix)))):
            why = f": {block}, -o {name}={value} overrides main.cf, which asks it"
            return why, f"{block}, remove that line, or make it (with the braces): {_option(name, postfix.main[name])}"
    if LIST in smtpd.overrides:
        value = smtpd.overrides[LIST]
        why = f": {block}, -o {LIST}={value} overrides whatever main.cf says"
        return why, f"{block}, make that line (with the braces): {_option(LIST, _with_service(value, address))}"
    for name, value in postfix.main.items():
        inside = _INSIDE.search(value)
        if inside is not None:
            why = f": in main.cf the line {inside[1]} = ... begins with a blank, so it continues the value of {name}"
            return why, f"begin {inside[1]} in the first column of main.cf"
    value = _with_service(smtpd.parameters.get(LIST, ""), address)
    return "", f"in main.cf: {LIST} = {value}; or for {smtpd.name} alone, in master.cf: {_option(LIST, value)}"


def _without(smtpd: Smtpd, name: str, postfix: Postfix) -> Smtpd:
    """An smtpd as it would be without one of its -o."""
    parameters = {key: value for key, value in smtpd.parameters.items() if key != name}
    return replace(smtpd, parameters=parameters | {key: postfix.main[key] for key in (name,) if key in postfix.main})


def _option(name: str, value: str) -> str:
    return f"-o {{ {name} = {value} }}"


def _with_service(text: str, address: str) -> str:
    """A list with this service in it, before the first word that ends it for somebody."""
    service = (RIGHT % address).partition(" = ")[2]
    ends = (word.start() for word in WORD.finditer(text) if word[0] in ENDS or word[0].startswith(PERMITS))
    at = next(ends, len(text))
    return ", ".join(part for part in (text[:at].rstrip(" ,"), service, text[at:]) if part)
