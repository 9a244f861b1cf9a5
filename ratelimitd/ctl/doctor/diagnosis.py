"""`ratelimitctl doctor`: looks at the daemon and at Postfix, and says what is wrong and how to fix it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ratelimitd.config.read import Configuration
from ratelimitd.control.answers import Evidence
from ratelimitd.control.commands import Doctor, Refused
from ratelimitd.ctl.answers import Diagnosis, Fault
from ratelimitd.ctl.client import NoDaemon, ask
from ratelimitd.ctl.doctor import places, postconf, reach, sasl, wiring
from ratelimitd.ctl.doctor.addresses import ANY, LOCALHOST, as_asked, host_and_port, is_deserted, is_ours, listening
from ratelimitd.ctl.doctor.postconf import Postfix
from ratelimitd.ctl.doctor.restrictions import Use
from ratelimitd.net.listeners import Address, parse_address
from ratelimitd.text import counted, escape

ENOUGH_REQUESTS = 20
"""If none of so many requests has a login, that is no coincidence."""


def diagnose(configuration: Configuration, folder: Path | None) -> Diagnosis:
    """Everything that is wrong. `folder` is that of Postfix's main.cf, None the default one. Raises Refused."""
    evidence: Evidence | None = None
    try:
        evidence = ask(configuration.control_socket, Doctor())
    except NoDaemon as error:
        faults = [Fault("not-running", f"{error}", "start ratelimitd")]
    else:
        faults = list(_seen(evidence))
    listen = evidence.listen if evidence is not None else configuration.settings.server.listen
    addresses = [parse_address(text) for text in listen]
    try:
        postfix = postconf.read(folder)
    except Refused as error:  # what was found of the daemon is worth saying all the same
        return Diagnosis([*faults, Fault("postfix-unread", f"Postfix cannot be examined: {error}", postconf.REMEDY)])
    first = addresses[0]
    shown = as_asked(first, postfix) if isinstance(first, Path) else f"inet:{listen[0]}"

    def ours(use: Use) -> bool:
        return is_ours(use, postfix, addresses)

    faults += wiring.malformed(postfix)
    faults += places.examine(postfix, ours)
    faults += wiring.examine(postfix, ours, partial(is_deserted, postfix=postfix, listening=[*listening()]), shown)
    free = [limit.name for limit in configuration.limits if limit.free]
    faults += places.recipients_unknown(postfix, ours, free)
    faults += reach.unreachable(postfix, addresses)
    faults += reach.shut_out(postfix, addresses, configuration.settings.server.allow, configuration.allow)
    if not configuration.settings.keys.domains:
        faults += sasl.examine(postfix, evidence.many_domains if evidence is not None else ())
    faults += _shared_ports(postfix, addresses, running=evidence is not None)
    return Diagnosis(list({(fault.name, fault.what): fault for fault in faults}.values()))


def text(answer: Diagnosis) -> str:
    """The faults for people."""
    if not answer.faults:
        return "Nothing wrong was found.\n"
    return "".join(map(_text, answer.faults))


def _text(fault: Fault) -> str:
    """A fault for people. Its lines can be pasted: in main.cf one that begins with a blank would continue another."""
    lines = "".join(f"{escape(line.text)}\n" for line in fault.lines)
    return f"WRONG  {escape(fault.what)}\n  fix  {escape(fault.fix)}{':' if lines else ''}\n{lines}"


# -- what the daemon has seen --------------------------------------------------------------------------------------


def _seen(evidence: Evidence) -> Iterator[Fault]:
    if evidence.store_unavailable:
        what = f"the store is unavailable, and counts are in memory and journal alone: {evidence.store_unavailable}"
        yield Fault("store-unavailable", what, "see what `ratelimitctl check` says of the store")
    if evidence.without_login >= ENOUGH_REQUESTS and not evidence.decisions and not evidence.without_key:
        what = f"all {counted(evidence.without_login, 'request')} came without sasl_username, so nothing was counted"
        fix = "wire the smtpd that users log in to (submission, port 587 or 465), or let them log in where they send"
        yield Fault("without-login", what, fix)
    pairs = evidence.bare_and_qualified
    if pairs:
        bare, qualified = pairs[0]
        domain = qualified.partition("@")[2]
        more = f" (users like that: {len(pairs)})" if len(pairs) > 1 else ""
        what = f"{bare} and {qualified} are counted separately{more}: one user, two quotas"
        yield Fault("two-names", what, f'if they are one account: [keys] default_domain = "{domain}"')
    if evidence.spellings:
        plain, other = evidence.spellings[0]
        more = f" (logins like that: {len(evidence.spellings)})" if len(evidence.spellings) > 1 else ""
        what = f"{plain} and {other} are counted separately{more}: if the password check takes both for one, two quotas"
        yield Fault("spellings", what, "if they are one account: [keys] ascii = true")
    for text in evidence.other_windows:
        fix = "set `timezone` (and `week_starts`) alike on all nodes that share the database"
        yield Fault("other-windows", f"nodes that share the database count in different windows: {text}", fix)


# -- ports ---------------------------------------------------------------------------------------------------------


def _shared_ports(postfix: Postfix, addresses: Sequence[Address], *, running: bool) -> Iterator[Fault]:
    ours = [address for address in addresses if isinstance(address, tuple)]
    found = list(listening())
    for host, port in ours:
        for name in postfix.ports:
            if host_and_port(name)[1] == port:
                what = f"master.cf has a service of Postfix on the port of ratelimitd: {name}"
                yield Fault("shared-port", what, "give one of them another port")
        for other, number in found:
            known = running and any(number == p and (other == h or h == "localhost") for h, p in ours)
            if number == port and not known and (other in LOCALHOST or other in ANY or other == host):
                what = f"another service listens on port {port}, at {other}; Postfix may ask either"
                fix = f"find it with `ss -ltnp 'sport = :{port}'`, stop it, and give an address, not a name, in main.cf"
                yield Fault("shared-port", what, fix)
