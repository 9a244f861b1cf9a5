"""Whether Postfix asks this service at the right places of its lists, and in the right way."""

from collections.abc import Callable, Iterator, Sequence

from ratelimitd.ctl.answers import Fault, Line
from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd
from ratelimitd.ctl.doctor.remedy import MAIN, SENDER, line, option, right, wired
from ratelimitd.ctl.doctor.restrictions import (
    AT_MESSAGE,
    AT_RCPT,
    BEFORE_ALL_OTHERS,
    DEFAULT_ACTION,
    ENDS,
    ETRN,
    PERMITS,
    REJECTS,
    SERVICE,
    Use,
    admits_logins,
    items,
    items_of,
    met_later,
    uses,
)

LOGIN_SERVICES = ("submission", "submissions", "smtps", "587", "465")
AUTH, TRY_LIMIT = "smtpd_sasl_auth_enable", "smtpd_policy_service_try_limit"


def examine(postfix: Postfix, is_ours: Callable[[Use], bool]) -> Iterator[Fault]:
    """The faults of how we are asked. `is_ours` tells whether a use asks us."""
    ours = [use for use in uses(postfix) if is_ours(use)]
    for use in ours:
        if use.smtpd.is_on(AUTH):
            yield from _counts_nothing(use)
            yield from _too_early(use)
        yield from _badly(use)
    if not any(smtpd.is_on(AUTH) for smtpd in postfix.smtpds):
        what = f"no smtpd of Postfix lets clients log in ({AUTH} = no), and only logins are counted"
        of_users = (smtpd for smtpd in postfix.smtpds if smtpd.name in LOGIN_SERVICES or AUTH in smtpd.overrides)
        smtpd = next(of_users, None)
        fixes = [Line(MAIN, "", f"{AUTH} = yes")] if smtpd is None else [option(smtpd, AUTH, "yes")]
        yield Fault("no-login", what, f"let them where your users send, {_in(fixes)}", fixes)
    for smtpd in filter(admits_logins, postfix.smtpds):
        yield from _passed_by([use for use in ours if use.smtpd is smtpd])


def recipients_unknown(postfix: Postfix, is_ours: Callable[[Use], bool], limits: Sequence[str]) -> Iterator[Fault]:
    """Where an smtpd asks us when Postfix no longer names recipients, which these limits have free ones of."""
    ours = [use for use in uses(postfix) if is_ours(use)]
    for smtpd in postfix.smtpds if limits else ():
        asks = [use for use in ours if use.smtpd is smtpd and admits_logins(smtpd)]
        if asks and all(use.list_name in AT_MESSAGE for use in asks):
            lists = " and ".join(dict.fromkeys(use.list_name for use in asks))
            what = (
                f"the service {smtpd.name} asks only in {lists}, where Postfix names no recipient of a mail that has "
                f"several: the free_recipients of the limit {', '.join(limits)} are counted in such a mail"
            )
            fixes = [line(smtpd, SENDER, wired(smtpd, asks[0].address))]
            yield Fault("recipients-unknown", what, f"ask at RCPT, too, {_in(fixes)}", fixes)


def _in(lines: Sequence[Line]) -> str:
    """Where the lines belong, for people."""
    places = [f"{line.file}, under {line.under}" if line.under else line.file for line in lines]
    return f"in {' and in '.join(dict.fromkeys(places))}"


def _fault(name: str, what: str, fix: str, use: Use) -> Fault:
    lines = right(use)
    return Fault(name, what, f"{fix}, {_in(lines)}", lines)


def _badly(use: Use) -> Iterator[Fault]:
    """Whether Postfix would ask in a way that harms mail."""
    parameters = use.smtpd.parameters
    by_parameter = "try_limit" not in use.options
    tries = use.options.get("try_limit", parameters[TRY_LIMIT])
    if tries == "1":
        what = f"try_limit is 1 in {use.where}: after one time-out Postfix skips the service, or defers all mail"
        lines = [line(use.smtpd, TRY_LIMIT, "2")] if by_parameter else right(use)
        yield Fault("try-limit", what, f"leave it at its default, 2, {_in(lines)}", lines)
    action = use.options.get("default_action", parameters["smtpd_policy_service_default_action"])
    if action == DEFAULT_ACTION:
        what = f"there is no default_action in {use.where}: while ratelimitd is down no mail is accepted"
        yield _fault("no-default-action", what, "let mail pass then", use)


def _counts_nothing(use: Use) -> Iterator[Fault]:
    if use.list_name == ETRN:
        yield _fault("counts-nothing", f"{use.where}: ETRN sends no mail", f"move it to {SENDER}", use)
        return
    if use.list_name in AT_RCPT and not use.smtpd.is_on("smtpd_delay_reject"):
        what = f"{use.where} is evaluated before RCPT, since smtpd_delay_reject = no: nothing is counted there"
        yield _fault("counts-nothing", what, f"move {SERVICE} to smtpd_recipient_restrictions", use)
        return
    for word in ENDS:
        if word in use.before:
            what = f"in {use.where} {word} comes before the service, which is never asked about users who log in"
            yield _fault("counts-nothing", what, f"move {SERVICE} before {word}", use)
            return


def _passed_by(asked: Sequence[Use]) -> Iterator[Fault]:
    """Whether some who log in are permitted wherever an smtpd would ask us of them."""
    open_to_all = [use for use in asked if not any(word in ENDS for word in use.before)]
    permits = [[word for word in use.before if word.startswith(PERMITS)] for use in open_to_all]
    if permits and all(permits):
        use, word = open_to_all[0], permits[0][0]
        who = "from mynetworks, by a webmail for example," if word == "permit_mynetworks" else "that it permits"
        what = f"in {use.where} {word} comes before the service: what is sent {who} with a login is not counted"
        yield _fault("passed-by", what, f"move {SERVICE} before {word}", use)


def _also_for(smtpd: Smtpd, list_name: str, item: str) -> str:
    """Whom a restriction spares where it stands, and would not if it stood before the service, for people."""
    before = items_of(smtpd, list_name)
    permits = [word for word in before[: before.index(item)] if word.startswith(PERMITS)]
    return f" (it applies to what {permits[0]} permits then)" if permits else ""


def _too_early(use: Use) -> Iterator[Fault]:
    """Whether recipients are counted that Postfix then rejects."""
    if use.list_name in BEFORE_ALL_OTHERS and use.smtpd.is_on("smtpd_delay_reject"):
        what = f"{use.where} comes before all other lists: recipients that those reject are counted"
        yield _fault("too-early", what, f"move {SERVICE} to {SENDER}", use)
        return
    if any(word in ENDS for word in use.before):
        return
    for item in items(use.after):
        if item.split()[0] in ENDS:
            break
        if item.startswith(REJECTS):
            what = f"in {use.where} the service is asked before {item}: what that rejects is counted"
            yield _fault("too-early", what, f"move {SERVICE} after {item}", use)
            return
    for list_name, item in met_later(use.smtpd, use.list_name):
        what = f"{use.where} comes before {list_name}, where {item} may reject a recipient: it has been counted then"
        fix = f"put {item} before {SERVICE}, too{_also_for(use.smtpd, list_name, item)}"
        yield _fault("too-early", what, fix, use)
        return
