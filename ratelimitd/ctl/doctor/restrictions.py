"""Postfix's restriction lists: what stands in them, and where they ask a policy service."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd

AT_RCPT = ("smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions")
ETRN = "smtpd_etrn_restrictions"
AT_MESSAGE = ("smtpd_data_restrictions", "smtpd_end_of_data_restrictions")
LISTS = (
    *AT_RCPT,
    *("smtpd_relay_restrictions", "smtpd_recipient_restrictions"),
    *AT_MESSAGE,
    ETRN,
)
ASKED_AT_RCPT = LISTS[:5]
"""The lists that Postfix evaluates for each recipient, in its order, unless smtpd_delay_reject is no."""
BEFORE_ALL_OTHERS = ("smtpd_client_restrictions", "smtpd_helo_restrictions")
ENDS = ("permit_sasl_authenticated", "permit", "reject", "defer")
"""What ends a list for a client that has logged in."""
PERMITS = "permit_"
"""How the names begin of what ends a list for some, with a login or without."""
REJECTS = "reject_"
WHO_MAY_SEND = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
DEFAULT_ACTION = "451 4.3.5 Server configuration problem"
SERVICE = "check_policy_service"

WORD = re.compile(r"\{[^}]*\}|[^\s,{}]+")
_WITH_ARGUMENT = re.compile(r"check_\w+|reject_r(?:bl|hsbl)_\w+|permit_(?:dnswl|rhswl)_\w+|sleep|warn_if_reject")
MAX_DEPTH = 10


class Use(NamedTuple):
    """A place where Postfix asks a policy service, and what comes before and after it in its list."""

    smtpd: Smtpd
    list_name: str
    address: str
    options: Mapping[str, str]
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def where(self) -> str:
        """The place, for people."""
        return f"{self.list_name} of the service {self.smtpd.name}"


def uses(postfix: Postfix) -> list[Use]:
    """Every use of a policy service by every smtpd."""
    return [use for smtpd in postfix.smtpds for use in uses_of(smtpd)]


def uses_of(smtpd: Smtpd) -> Iterator[Use]:
    """Every use of a policy service by one smtpd."""
    for list_name in LISTS:
        words = list(_words(smtpd, smtpd.parameters.get(list_name, "")))
        for i, word in enumerate(words[:-1]):
            if word == SERVICE:
                address, options = _service(words[i + 1])
                yield Use(smtpd, list_name, address, options, tuple(words[:i]), tuple(words[i + 2 :]))


def _words(smtpd: Smtpd, text: str, depth: int = 0) -> Iterator[str]:
    """The words of a list, restriction classes replaced by what they stand for."""
    classes = smtpd.parameters.get("smtpd_restriction_classes", "").replace(",", " ").split()
    for word in WORD.findall(text):
        if word in classes and depth < MAX_DEPTH:
            yield from _words(smtpd, smtpd.parameters.get(word, ""), depth + 1)
        else:
            yield word


def _service(word: str) -> tuple[str, dict[str, str]]:
    """`inet:HOST:PORT`, or `{ inet:HOST:PORT, name=value, ... }`."""
    if not word.startswith("{"):
        return word, {}
    first, *rest = [part.strip() for part in word[1:-1].split(",")]
    address, *more = first.split()
    options = {}
    for option in [*more, *rest]:
        name, _, value = option.partition("=")
        options[name.strip()] = value.strip()
    return address, options


def items_of(smtpd: Smtpd, list_name: str) -> list[str]:
    """The restrictions of a list, each with its argument."""
    return items(_words(smtpd, smtpd.parameters.get(list_name, "")))


def items(words: Iterable[str]) -> list[str]:
    """Words of a list as restrictions, each with its argument."""
    found: list[str] = []
    argument_due = False
    for word in words:
        if argument_due:
            found[-1] += f" {word}"
        else:
            found.append(word)
        argument_due = _WITH_ARGUMENT.fullmatch(word) is not None
    return found


def met_later(smtpd: Smtpd, list_name: str) -> Iterator[tuple[str, str]]:
    """What may still reject a recipient of somebody who has logged in once this list has passed: list, restriction."""
    if list_name not in ASKED_AT_RCPT:
        return
    at = ASKED_AT_RCPT.index(list_name) + 1
    seen = {item for name in ASKED_AT_RCPT[:at] for item in items_of(smtpd, name)}
    for name in ASKED_AT_RCPT[at:]:
        for item in items_of(smtpd, name):
            if item.split()[0] in ENDS:
                break
            if item.startswith(REJECTS) and item not in seen:
                seen.add(item)
                yield name, item


def admits_logins(smtpd: Smtpd) -> bool:
    """Whether users log in at an smtpd to send. At the port that a content filter returns mail to nobody does: it
    inherits the setting that lets clients log in, and rejects all but mynetworks."""
    return smtpd.is_on("smtpd_sasl_auth_enable") and not any(_is_closed(smtpd, name) for name in WHO_MAY_SEND)


def _is_closed(smtpd: Smtpd, list_name: str) -> bool:
    """Whether a list rejects all but those that something other than a login permits."""
    words = [item.split()[0] for item in items_of(smtpd, list_name)]
    ends = next((word for word in words if word in ENDS), "")
    return ends in ("reject", "defer") and "check_sasl_access" not in words
