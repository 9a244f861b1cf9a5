"""Where users log in and this service is not asked: which line of main.cf or master.cf is at fault, and its fix."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from ratelimitd.ctl.answers import Fault, Line
from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd
from ratelimitd.ctl.doctor.remedy import SENDER, line, option, wired
from ratelimitd.ctl.doctor.restrictions import Use, admits_logins, uses_of

_INSIDE = re.compile(r"\b(smtpd_\w+_restrictions)\s*=[^=]*\bcheck_policy_service")
"""A parameter in the value of another: its line begins with a blank."""


def malformed(postfix: Postfix) -> Iterator[Fault]:
    """The options of master.cf that end an smtpd as soon as it starts."""
    for smtpd in postfix.smtpds:
        for wrong in smtpd.malformed:
            what = (
                f"in master.cf, under {smtpd.name}, {wrong.text} is no option that Postfix understands: its smtpd ends "
                "there at once, with a line in the mail log, and takes no mail"
            )
            fix = f"blanks in a value need braces; in master.cf, under {smtpd.name}, in place of it"
            yield Fault("malformed", what, fix, [option(smtpd, wrong.name, wrong.value)])


def examine(
    postfix: Postfix, is_ours: Callable[[Use], bool], is_deserted: Callable[[Use], bool], address: str
) -> Iterator[Fault]:
    """The faults. `is_ours` tells whether a use asks us, `is_deserted` whether it asks where nobody listens; `address`
    is how we are asked."""
    for smtpd in postfix.smtpds:
        if admits_logins(smtpd) and not any(map(is_ours, uses_of(smtpd))):
            others = {use.address: is_deserted(use) for use in uses_of(smtpd)}
            told = [f"{other}, where nobody listens" if others[other] else other for other in sorted(others)]
            asked = f"; it asks {' and '.join(told)}" if told else ""
            why, fix, lines = _why(postfix, smtpd, is_ours, wired(smtpd, address, [o for o in others if others[o]]))
            what = f"the service {smtpd.name}, where users log in, never asks ratelimitd at {address}{asked}{why}"
            yield Fault("not-wired", what, fix, lines)


def _why(postfix: Postfix, smtpd: Smtpd, is_ours: Callable[[Use], bool], asking: str) -> tuple[str, str, list[Line]]:
    """What keeps it from asking us, as far as that is seen, and the fix; `asking`: the value of SENDER that asks us."""
    block = f"in master.cf, under {smtpd.name}"
    for name, value in smtpd.overrides.items():
        if any(map(is_ours, uses_of(_without(smtpd, name, postfix)))):
            why = f": {block}, -o {name}={value} overrides main.cf, which asks it"
            return why, f"{block}, remove that line, or make it", [option(smtpd, name, postfix.main[name])]
    if SENDER in smtpd.overrides:
        why = f": {block}, -o {SENDER}={smtpd.overrides[SENDER]} overrides whatever main.cf says"
        return why, f"{block}, make that line", [option(smtpd, SENDER, asking)]
    for name, text in postfix.main.items():
        inside = _INSIDE.search(text)
        if inside is not None:
            why = f": in main.cf the line {inside[1]} = ... begins with a blank, so it continues the value of {name}"
            outside = [Line("main.cf", "", f"{name} = {text[: inside.start()]}".rstrip()), line(smtpd, SENDER, asking)]
            return why, f"begin {inside[1]} in the first column of main.cf", outside
    return "", "in main.cf", [line(smtpd, SENDER, asking)]


def _without(smtpd: Smtpd, name: str, postfix: Postfix) -> Smtpd:
    """An smtpd as it would be without one of its -o."""
    parameters = {key: value for key, value in smtpd.parameters.items() if key != name}
    return replace(smtpd, parameters=parameters | {key: postfix.main[key] for key in (name,) if key in postfix.main})
