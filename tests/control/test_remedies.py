"""Every remedy of `ratelimitctl doctor` is applied as it is printed to a real Postfix, which then counts."""

import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import require
from tests.control.conftest import Ctl, Start
from tests.daemon.process import Ratelimitd
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

pytestmark = pytest.mark.real

ROUNDS = 3
SENDER, RECIPIENT = "smtpd_sender_restrictions", "smtpd_recipient_restrictions"
ASKS = "check_policy_service { @, timeout=10s, default_action=DUNNO }"


class Wrong(NamedTuple):
    """A configuration that is wrong: main.cf, the -o of master.cf, and [server] of ours; `@` is how we are asked."""

    fault: str
    main: Mapping[str, str] = {}
    options: tuple[str, ...] = ()
    server: Mapping[str, Any] = {}
    chroot: str = "n"
    free: tuple[str, ...] = ()


WRONG = {
    "nobody asks": Wrong("not-wired"),
    "another list": Wrong("not-wired", {SENDER: "reject_non_fqdn_sender, permit_mynetworks"}),
    "Debian's empty -o": Wrong("not-wired", {SENDER: ASKS}, (f"-o {SENDER}=",)),
    "a -o with another list": Wrong("not-wired", {}, (f"-o {SENDER}=reject_non_fqdn_sender,permit_mynetworks",)),
    "a class that a -o empties": Wrong(
        "not-wired", {"smtpd_restriction_classes": "ours", "ours": ASKS, SENDER: "ours"}, ("-o ours=permit",)
    ),
    "a line that continues another": Wrong(
        "not-wired", {"smtpd_banner": f"x\n  {SENDER} = reject_unlisted_recipient,\n  {ASKS}"}
    ),
    "a -o without braces": Wrong("malformed", {}, (f"-o {SENDER}={ASKS}",)),
    "a -o without braces, and without options": Wrong("malformed", {}, (f"-o {SENDER}=check_policy_service @",)),
    "a -o with blanks around its sign": Wrong("malformed", {SENDER: ASKS}, (f"-o {SENDER} = {ASKS}",)),
    "behind what permits a login": Wrong("counts-nothing", {RECIPIENT: f"permit_sasl_authenticated, {ASKS}, reject"}),
    "behind what permits, at DATA": Wrong("counts-nothing", {"smtpd_data_restrictions": f"permit, {ASKS}"}),
    "evaluated at MAIL": Wrong("counts-nothing", {SENDER: ASKS, "smtpd_delay_reject": "no"}),
    "at ETRN": Wrong("counts-nothing", {"smtpd_etrn_restrictions": ASKS}),
    "behind mynetworks": Wrong("passed-by", {SENDER: f"reject_non_fqdn_sender, permit_mynetworks, {ASKS}"}),
    "behind mynetworks and before what rejects": Wrong(
        "passed-by", {RECIPIENT: f"permit_mynetworks, {ASKS}, reject_non_fqdn_recipient, permit_sasl_authenticated"}
    ),
    "before what rejects": Wrong("too-early", {RECIPIENT: f"{ASKS}, reject_non_fqdn_recipient, permit_mynetworks"}),
    "before a list that rejects": Wrong("too-early", {SENDER: ASKS, RECIPIENT: "reject_non_fqdn_recipient, permit"}),
    "in the first list": Wrong("too-early", {"smtpd_client_restrictions": ASKS}),
    "in the first list, by -o": Wrong("too-early", {}, ("-o { smtpd_client_restrictions = " + ASKS + " }",)),
    "one attempt": Wrong("try-limit", {SENDER: ASKS.replace("timeout=10s", "try_limit=1")}),
    "one attempt everywhere": Wrong("try-limit", {SENDER: ASKS, "smtpd_policy_service_try_limit": "1"}),
    "no default action": Wrong("no-default-action", {SENDER: "check_policy_service @"}),
    "no logins": Wrong("no-login", {SENDER: ASKS, "smtpd_sasl_auth_enable": "no"}),
    "no logins, by -o": Wrong("no-login", {SENDER: ASKS}, ("-o smtpd_sasl_auth_enable=no",)),
    "free recipients, and asked at DATA": Wrong(
        "recipients-unknown", {"smtpd_data_restrictions": ASKS}, free=("@example.org",)
    ),
    "shut out": Wrong("shut-out", {SENDER: ASKS}, server={"allow": ["192.0.2.0/24"]}),
    "a socket that Postfix may not use": Wrong(
        "unreachable", {SENDER: ASKS}, server={"listen": ["unix:FOLDER/s"], "unix_mode": "0600"}
    ),
    "a socket outside of the chroot": Wrong(
        "unreachable", {SENDER: ASKS}, server={"listen": ["unix:FOLDER/s"], "unix_mode": "0666"}, chroot="y"
    ),
}


class Edited(Postfix):
    """A Postfix whose configuration is edited as an administrator does."""

    def __init__(self, folder: Path, main: Mapping[str, str], options: tuple[str, ...], chroot: str) -> None:
        super().__init__(folder)
        self.main, self.options, self.chroot = dict(main), list(options), chroot
        self.etc = folder / "etc"

    def write(self) -> None:
        """Write main.cf and master.cf."""
        self._prepare(self.settings("127.0.0.0/8", True) | self.main)

    def _prepare(self, settings: Mapping[str, str]) -> None:
        super()._prepare(settings)
        master = (self.etc / "master.cf").read_text()
        options = "".join(f"  {option}\n" for option in self.options)
        (self.etc / "master.cf").write_text(master.replace("n - - smtpd\n", f"{self.chroot} - - smtpd\n{options}", 1))

    def apply(self, line: Mapping[str, str]) -> None:
        """Put a line in place of the one that sets the same."""
        name = re.split(r"[\s={]+", line["text"].replace("-o", "", 1).strip().lstrip("{ "))[0]
        if line["file"] == "main.cf":
            assert not line["text"][0].isspace()
            self.main[name] = line["text"].partition("=")[2].strip()
        else:
            assert line["under"] == f"127.0.0.1:{self.port}"
            assert line["text"].startswith("  -o ")
            others = [option for option in self.options if not re.match(rf"-o\s+\{{?\s*{name}\b", option)]
            self.options = [*others, line["text"].strip()]


def apply_to_ours(daemon: Ratelimitd, line: Mapping[str, str]) -> None:
    """Put a line into ratelimitd.toml, under its table."""
    text, name = daemon.file.read_text(), line["text"].partition(" ")[0]
    assert f"{line['under']}\n" in text
    text = re.sub(rf"^{name} = .*\n", "", text, flags=re.MULTILINE)
    daemon.file.write_text(text.replace(f"{line['under']}\n", f"{line['under']}\n{line['text']}\n", 1))


@pytest.mark.parametrize("kind", WRONG)
def test_a_postfix_to_which_the_remedy_is_applied_counts(make: Start, ctl_of: Ctl, folder: Path, kind: str) -> None:
    require("postfix")
    wrong = WRONG[kind]
    limit = [{"quota": 2, "free_recipients": list(wrong.free)}]
    server = {
        name: [each.replace("FOLDER", str(folder)) for each in value] if isinstance(value, list) else value
        for name, value in wrong.server.items()
    }
    daemon = make(server=server, limit=limit)
    listen = daemon.listen[0] if daemon.listen[0].startswith("unix:") else f"inet:{daemon.listen[0]}"
    told = {name: value.replace("@", listen) for name, value in wrong.main.items()}
    postfix = Edited(folder, told, tuple(option.replace("@", listen) for option in wrong.options), wrong.chroot)
    postfix.write()
    daemon.start()
    try:
        doctor = ("doctor", "--postfix-config", str(postfix.etc), "--json")
        heal(postfix, daemon, lambda: ctl_of(daemon, *doctor).json, wrong)
        postfix.start(postfix.main, mynetworks="127.0.0.0/8", xclient=True)
        with Smtp(postfix.port) as smtp:
            smtp.xclient(login="alice@example.com")
            replies = smtp.message("a@example.com", *[f"{n}@example.net" for n in range(3)])
            smtp.quit()
        assert 450 in [reply.code for reply in replies]
    finally:
        postfix.stop()
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 3}


def heal(postfix: Edited, daemon: Ratelimitd, doctor: Callable[[], Any], wrong: Wrong) -> None:
    """Apply the lines of a fault until there is none, first those of the expected one."""
    faults = sorted(doctor()["faults"], key=lambda fault: fault["name"] != wrong.fault)
    assert faults[0]["name"] == wrong.fault
    for _ in range(ROUNDS):
        for line in faults[0]["lines"]:
            if line["file"] == "ratelimitd.toml":
                apply_to_ours(daemon, line)
            else:
                postfix.apply(line)
        postfix.write()
        if any(line["file"] == "ratelimitd.toml" for line in faults[0]["lines"]):
            assert daemon.stop(signal.SIGTERM) == 0
            daemon.listen = re.findall(r'^listen = \["(.*)"\]', daemon.file.read_text(), flags=re.MULTILINE)
            daemon.start()
        faults = doctor()["faults"]
        if not faults:
            return
    pytest.fail(f"still wrong: {faults}")
