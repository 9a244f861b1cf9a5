"""What is wrong with how Postfix asks this service: examines its restriction lists, and nothing else."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ratelimitd.ctl.answers import Fault
from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd

RIGHT = "smtpd_sender_restrictions = check_policy_service { %s, timeout=10s, default_action=DUNNO }"
AT_RCPT = ("smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions")
AT_MESSAGE = ("smtpd_data_restrictions", "smtpd_end_of_data_restrictions")
LISTS = (
    *AT_RCPT,
    *("smtpd_relay_restrictions", "smtpd_recipient_restrictions"),
    *AT_MESSAGE,
    "smtpd_etrn_restrictions",
)
BEFORE_ALL_OTHERS = ("smtpd_client_restrictions", "smtpd_helo_restrictions")
ENDS = ("permit_sasl_authenticated", "permit", "reject", "defer")
"""What ends a list for a client that has logged in."""
PERMITS = "permit_"
"""How the names begin of what ends a list for some, with a login or without."""
DEFAULT_ACTION = "451 4.3.5 Server configuration problem"
SERVICE = "check_policy_service"

WORD = re.compile(r"\{[^}]*\}|[^\s,{}]+")
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


def examine(postfix: Postfix, is_ours: Callable[[Use], bool]) -> list[Fault]:
    """The faults of how we are asked. `is_ours` tells whether a use asks us."""
    ours = [use for use in uses(postfix) if is_ours(use)]
    faults = [fault for use in ours for fault in _of_use(use)]
    logins = [smtpd for smtpd in postfix.smtpds if smtpd.is_on("smtpd_sasl_auth_enable")]
    if not logins:
        what = "no smtpd of Postfix lets clients log in (smtpd_sasl_auth_enable = no), and only logins are counted"
        faults.append(Fault("no-login", what, "set smtpd_sasl_auth_enable = yes where your users send"))
    for smtpd in logins:
        faults += _passed_by([use for use in ours if use.smtpd is smtpd])
    return list(dict.fromkeys(faults))


def recipients_unknown(postfix: Postfix, is_ours: Callable[[Use], bool], limits: Sequence[str]) -> Iterator[Fault]:
    """Where an smtpd asks us when Postfix no longer names recipients, which these limits have free ones of."""
    ours = [use for use in uses(postfix) if is_ours(use)]
    for smtpd in postfix.smtpds if limits else ():
        asks = [use for use in ours if use.smtpd is smtpd and smtpd.is_on("smtpd_sasl_auth_enable")]
        if asks and all(use.list_name in AT_MESSAGE for use in asks):
            lists = " and ".join(dict.fromkeys(use.list_name for use in asks))
            what = (
                f"the service {smtpd.name} asks only in {lists}, where Postfix names no recipient of a mail that has "
                f"several: the free_recipients of the limit {', '.join(limits)} are counted in such a mail"
            )
            yield Fault("recipients-unknown", what, f"ask at RCPT, too: {RIGHT % asks[0].address}")


def _of_use(use: Use) -> Iterator[Fault]:
    yield from _counts_nothing(use)
    yield from _too_early(use)
    parameters = use.smtpd.parameters
    tries = use.options.get("try_limit", parameters["smtpd_policy_service_try_limit"])
    if tries == "1":
        what = f"try_limit is 1 in {use.where}: after one time-out Postfix skips the service, or defers all mail"
        yield Fault("try-limit", what, "leave smtpd_policy_service_try_limit and try_limit at their default, 2")
    action = use.options.get("default_action", parameters["smtpd_policy_service_default_action"])
    if action == DEFAULT_ACTION:
        what = f"there is no default_action in {use.where}: while ratelimitd is down no mail is accepted"
        fix = f"{SERVICE} {{ {use.address}, timeout=10s, default_action=DUNNO }}"
        yield Fault("no-default-action", what, fix)


def _counts_nothing(use: Use) -> Iterator[Fault]:
    if use.list_name == "smtpd_etrn_restrictions":
        yield Fault("counts-nothing", f"{use.where}: ETRN sends no mail", "move it to smtpd_sender_restrictions")
    if use.list_name in AT_RCPT and not use.smtpd.is_on("smtpd_delay_reject"):
        what = f"{use.where} is evaluated before RCPT, since smtpd_delay_reject = no: nothing is counted there"
        yield Fault("counts-nothing", what, "set smtpd_delay_reject = yes, or move it to smtpd_recipient_restrictions")
    for word in ENDS:
        if word in use.before:
            what = f"in {use.where} {word} comes before the service, which is never asked about users who log in"
            yield Fault("counts-nothing", what, f"move {SERVICE} before {word}")
            return


def _passed_by(asked: Sequence[Use]) -> Iterator[Fault]:
    """Whether some who log in are permitted wherever an smtpd would ask us of them."""
    open_to_all = [use for use in asked if not any(word in ENDS for word in use.before)]
    permits = [[word for word in use.before if word.startswith(PERMITS)] for use in open_to_all]
    if permits and all(permits):
        use, word = open_to_all[0], permits[0][0]
        who = "from mynetworks, by a webmail for example," if word == "permit_mynetworks" else "that it permits"
        what = f"in {use.where} {word} comes before the service: what is sent {who} with a login is not counted"
        yield Fault("passed-by", what, f"move {SERVICE} before {word}")


def _too_early(use: Use) -> Iterator[Fault]:
    """Whether recipients are counted that Postfix then rejects."""
    if use.list_name in BEFORE_ALL_OTHERS and use.smtpd.is_on("smtpd_delay_reject"):
        what = f"{use.where} comes before all other lists: recipients that those reject are counted"
        yield Fault("too-early", what, "move it to smtpd_sender_restrictions or smtpd_recipient_restrictions")
    for word in use.after:
        if word in ENDS:
            return
        if word.startswith("reject_"):
            what = f"in {use.where} the service is asked before {word}: what that rejects is counted"
            yield Fault("too-early", what, f"move {SERVICE} after {word}")
            return
