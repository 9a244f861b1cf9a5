"""`ratelimitctl doctor` on real Postfix configurations: it names what is wrong, and nothing else."""

import os
import re
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ratelimitd.ctl.doctor import postconf, sasl
from ratelimitd.ctl.doctor.reach import unreachable
from tests.conftest import require
from tests.control.conftest import Ctl, Ran, Start
from tests.daemon.process import Ratelimitd, listen_elsewhere
from tests.instances.ports import free_port

pytestmark = pytest.mark.real

MASTER_CF = """\
smtp       inet  n       -       y       -       -       smtpd
submission inet  n       -       {chroot}       -       -       smtpd
  -o smtpd_sasl_auth_enable=yes
{options}
cleanup    unix  n       -       y       -       0       cleanup
qmgr       unix  n       -       n       300     1       qmgr
{more}
"""
MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = mail.example.com
mynetworks = 127.0.0.0/8
{settings}
"""

Examine = Callable[..., Ran]


@pytest.fixture
def daemon(untouched: Ratelimitd) -> Ratelimitd:
    """One that nobody has asked anything; a test that asks starts its own."""
    return untouched


@pytest.fixture
def examine(folder: Path, ctl_of: Ctl) -> Examine:
    """`examine(daemon, main_cf)`: doctor on a Postfix so configured; `@` there is how the daemon is asked."""
    require("postfix")

    def run(daemon: Ratelimitd, main_cf: str, *, options: str = "", chroot: str = "y", more: str = "") -> Ran:
        etc = folder / "postfix"
        etc.mkdir(exist_ok=True)
        ours = daemon.listen[0] if daemon.listen[0].startswith("unix:") else f"inet:{daemon.listen[0]}"
        (etc / "main.cf").write_text(MAIN_CF.format(folder=folder, settings=main_cf.replace("@", ours)))
        lines = "".join(f"  -o {line.replace('@', ours)}\n" for line in options.splitlines())
        os.utime(etc / "main.cf", (0, 0))  # Postfix waits 1.5 s for a file that is just being edited
        (etc / "master.cf").write_text(MASTER_CF.format(chroot=chroot, options=lines, more=more))
        text = ctl_of(daemon, "doctor", "--postfix-config", str(etc))
        found = ctl_of(daemon, "doctor", "--postfix-config", str(etc), "--json")
        assert text.status == found.status
        for fault in found.json["faults"]:
            assert list(fault) == ["name", "what", "fix", "lines"]
            lines = "".join(f"{line['text']}\n" for line in fault["lines"])
            assert f"WRONG  {fault['what']}\n  fix  {fault['fix']}{':' if lines else ''}\n{lines}" in text.out
        return found

    return run


def names(ran: Ran) -> list[str]:
    assert ran.status == int(bool(ran.json["faults"]))
    return [fault["name"] for fault in ran.json["faults"]]


def says(ran: Ran, name: str, *parts: str) -> bool:
    """Whether this is the only fault, and its text has these parts."""
    assert names(ran) == [name]
    (fault,) = ran.json["faults"]
    said = fault["what"] + fault["fix"] + "".join(line["text"] for line in fault["lines"])
    return all(part in said for part in parts)


def texts(ran: Ran, file: str) -> list[str]:
    """The lines of a file that fix the first fault, without the blanks and the -o that they begin with."""
    return [line["text"].removeprefix("  -o ") for line in ran.json["faults"][0]["lines"] if line["file"] == file]


SENDER = "smtpd_sender_restrictions = check_policy_service { @, timeout=10s, default_action=DUNNO }"
RIGHT = {
    "the recommended one": SENDER,
    "behind a map of users, in data, by the Postfix-wide default": (
        "smtpd_policy_service_default_action = DUNNO\n"
        "smtpd_sender_restrictions = reject_non_fqdn_sender, check_policy_service @\n"
        "smtpd_data_restrictions = check_policy_service @, permit_sasl_authenticated, reject"
    ),
    "through a restriction class and a parameter": (
        "service = check_policy_service { @, default_action=DUNNO }\n"
        "smtpd_restriction_classes = counted\n"
        "counted = $service\n"
        "smtpd_recipient_restrictions = counted, permit_mynetworks, permit_sasl_authenticated, reject"
    ),
    "in two lists, and in one of them before what permits": (
        "smtpd_sender_restrictions = permit_mynetworks, check_policy_service { @, default_action=DUNNO }\n"
        "smtpd_end_of_data_restrictions = check_policy_service { @, default_action=DUNNO }"
    ),
}


@pytest.mark.parametrize("main_cf", RIGHT.values(), ids=RIGHT)
def test_nothing_is_said_of_a_right_configuration(daemon: Ratelimitd, examine: Examine, main_cf: str) -> None:
    assert names(examine(daemon, main_cf)) == []


def test_a_right_configuration_is_said_to_be_so(
    daemon: Ratelimitd, examine: Examine, ctl_of: Ctl, folder: Path
) -> None:
    examine(daemon, SENDER)
    ran = ctl_of(daemon, "doctor", "--postfix-config", str(folder / "postfix"))
    assert (ran.status, ran.out) == (0, "Nothing wrong was found.\n")


def test_not_wired(daemon: Ratelimitd, examine: Examine) -> None:
    ran = examine(daemon, "smtpd_sender_restrictions = reject_non_fqdn_sender")
    assert says(ran, "not-wired", "the service submission", f"inet:{daemon.listen[0]}", "smtpd_sender_restrictions =")


def test_wired_to_another_port(daemon: Ratelimitd, examine: Examine) -> None:
    ran = examine(daemon, "smtpd_sender_restrictions = check_policy_service inet:127.0.0.1:9")
    assert says(ran, "not-wired", "it asks inet:127.0.0.1:9")


@pytest.mark.parametrize("left", ["inet:127.0.0.1:{port}", "inet:localhost:{port}", "unix:private/ratelimitd"])
def test_an_address_where_nobody_listens_any_more_is_left_out_of_the_fix(
    daemon: Ratelimitd, examine: Examine, left: str
) -> None:
    """As after `listen` was changed: each request to it would wait a second, and be logged."""
    old = left.format(port=free_port())
    asks = f"check_policy_service {{ {old}, default_action=DUNNO }}"
    ran = examine(daemon, f"smtpd_sender_restrictions = reject_non_fqdn_sender, {asks}")
    assert says(ran, "not-wired", f"it asks {old}, where nobody listens")
    (text,) = texts(ran, "main.cf")
    assert text.startswith("smtpd_sender_restrictions = reject_non_fqdn_sender, ")
    assert re.findall(r"check_policy_service \{ ([^,]*),", text) == [f"inet:{daemon.listen[0]}"]


def test_another_service_that_listens_stays_in_the_fix(daemon: Ratelimitd, examine: Examine) -> None:
    with listen_elsewhere(free_port()) as other:
        asks = f"check_policy_service inet:127.0.0.1:{other.getsockname()[1]}"
        ran = examine(daemon, f"smtpd_sender_restrictions = {asks}")
    assert not says(ran, "not-wired", "where nobody listens")
    assert asks in texts(ran, "main.cf")[0]


LOGIN_MISMATCH = "reject_sender_login_mismatch"
OVERRIDDEN = {
    "Debian's empty list": (
        SENDER,
        "smtpd_sender_restrictions=",
        "-o smtpd_sender_restrictions= overrides main.cf, which asks it",
        "remove that line",
    ),
    "a restriction class": (
        f"smtpd_restriction_classes = counted\ncounted = {SENDER.partition(' = ')[2]}\n"
        "smtpd_sender_restrictions = counted",
        "counted=permit",
        "-o counted=permit overrides main.cf, which asks it",
        "remove that line",
    ),
    "another list, and main.cf does not ask either": (
        "",
        f"smtpd_sender_restrictions={LOGIN_MISMATCH},permit_sasl_authenticated",
        f"-o smtpd_sender_restrictions={LOGIN_MISMATCH},permit_sasl_authenticated overrides whatever main.cf says",
        "make that line",
    ),
    "a value without braces": (
        SENDER,
        "smtpd_sender_restrictions=check_policy_service { @, default_action=DUNNO }",
        "smtpd_sender_restrictions=check_policy_service inet:",
        "blanks in a value need braces",
    ),
}


@pytest.mark.parametrize("kind", OVERRIDDEN)
def test_overridden_where_users_log_in(daemon: Ratelimitd, examine: Examine, kind: str) -> None:
    main_cf, option, why, how = OVERRIDDEN[kind]
    ran = examine(daemon, main_cf, options=option)
    name = "malformed" if kind == "a value without braces" else "not-wired"
    assert says(ran, name, "in master.cf, under submission", why, how)
    [line] = texts(ran, "master.cf")
    assert names(examine(daemon, main_cf, options=line)) == []
    assert names(examine(daemon, main_cf)) == ([] if main_cf else ["not-wired"])


def test_a_line_that_continues_another(daemon: Ratelimitd, examine: Examine) -> None:
    ran = examine(daemon, f"smtpd_banner = x\n  {SENDER}")
    why = "in main.cf the line smtpd_sender_restrictions = ... begins with a blank, so it continues the value of"
    fix = "begin smtpd_sender_restrictions in the first column of main.cf"
    assert says(ran, "not-wired", f"{why} smtpd_banner", fix)


def test_what_is_to_be_put_into_main_cf_is_right_there(daemon: Ratelimitd, examine: Examine) -> None:
    there = f"smtpd_sender_restrictions = {LOGIN_MISMATCH}, permit_mynetworks"
    [line] = texts(examine(daemon, there), "main.cf")
    assert line.startswith("smtpd_sender_restrictions = ")
    assert names(examine(daemon, line)) == []


def test_nobody_can_log_in(daemon: Ratelimitd, examine: Examine) -> None:
    assert says(examine(daemon, SENDER, options="smtpd_sasl_auth_enable=no"), "no-login")


@pytest.mark.parametrize("name", ["client", "helo", "sender"])
def test_wired_where_it_is_evaluated_before_rcpt(daemon: Ratelimitd, examine: Examine, name: str) -> None:
    wired = SENDER.replace("_sender_", f"_{name}_")
    ran = examine(daemon, f"{wired}\nsmtpd_delay_reject = no")
    assert set(names(ran)) == {"counts-nothing"}
    assert f"smtpd_{name}_restrictions" in ran.out


@pytest.mark.parametrize("word", ["permit_sasl_authenticated", "permit", "reject"])
def test_wired_behind_what_ends_the_list(daemon: Ratelimitd, examine: Examine, word: str) -> None:
    wired = SENDER.replace("= ", f"= permit_mynetworks, {word}, ", 1).replace("_sender_", "_recipient_")
    ran = examine(daemon, wired)
    assert set(names(ran)) == {"counts-nothing"}
    assert f"move check_policy_service before {word}" in ran.out


@pytest.mark.parametrize("word", ["permit_mynetworks", "permit_tls_clientcerts"])
def test_wired_behind_what_permits_some_who_log_in(daemon: Ratelimitd, examine: Examine, word: str) -> None:
    ran = examine(daemon, SENDER.replace("= ", f"= reject_non_fqdn_sender, {word}, ", 1))
    fix = f"move check_policy_service before {word}"
    assert says(ran, "passed-by", "smtpd_sender_restrictions of the service submission", word, fix)


DATA = "smtpd_data_restrictions = check_policy_service { @, default_action=DUNNO }\n"


def test_free_recipients_where_postfix_names_none(start: Start, examine: Examine) -> None:
    daemon = start(limit=[{"name": "daily", "free_recipients": ["@example.org"]}])
    at_end = DATA.replace("_data_", "_end_of_data_")
    ran = examine(daemon, DATA + at_end)
    lists = "smtpd_data_restrictions and smtpd_end_of_data_restrictions"
    assert says(ran, "recipients-unknown", "the service submission asks only in " + lists, "limit daily", SENDER[:26])
    assert names(examine(daemon, SENDER + "\n" + DATA)) == []


def test_without_free_recipients_postfix_need_not_name_any(daemon: Ratelimitd, examine: Examine) -> None:
    assert names(examine(daemon, DATA)) == []


def test_postfix_shut_out(start: Start, examine: Examine) -> None:
    daemon = start(server={"allow": ["192.0.2.0/24"]})
    ran = examine(daemon, SENDER)
    assert set(names(ran)) == {"shut-out"}
    assert "Postfix connects from 127.0.0.1, which server.allow does not have" in ran.out
    assert texts(ran, "ratelimitd.toml") == ['allow = ["192.0.2.0/24", "127.0.0.1"]']


def test_a_name_with_addresses_that_nobody_listens_at_is_no_fault(start: Start, examine: Examine) -> None:
    daemon = start(server={"allow": ["127.0.0.1"]})
    assert names(examine(daemon, SENDER.replace("@", f"inet:localhost:{daemon.port}"))) == []


def test_what_a_later_list_rejects(daemon: Ratelimitd, examine: Examine) -> None:
    later = "smtpd_recipient_restrictions = permit_mynetworks, reject_unlisted_recipient, permit_sasl_authenticated"
    ran = examine(daemon, f"{SENDER}\n{later}")
    assert says(ran, "too-early", "reject_unlisted_recipient may reject", "to what permit_mynetworks permits then")
    assert names(examine(daemon, f"{texts(ran, 'main.cf')[0]}\n{later}")) == []


def test_wired_too_early(daemon: Ratelimitd, examine: Examine) -> None:
    wired = SENDER.replace("_sender_", "_recipient_")
    ran = examine(daemon, f"{wired}, reject_unknown_recipient_domain, permit_sasl_authenticated, reject")
    assert set(names(ran)) == {"too-early"}
    assert "move check_policy_service after reject_unknown_recipient_domain" in ran.out
    assert set(names(examine(daemon, SENDER.replace("_sender_", "_client_")))) == {"too-early"}


@pytest.mark.parametrize(
    "main_cf",
    [f"{SENDER}\nsmtpd_policy_service_try_limit = 1", SENDER.replace("timeout=10s", "try_limit=1")],
)
def test_try_limit_of_1(daemon: Ratelimitd, examine: Examine, main_cf: str) -> None:
    assert set(names(examine(daemon, main_cf))) == {"try-limit"}


def test_no_default_action(daemon: Ratelimitd, examine: Examine) -> None:
    ran = examine(daemon, "smtpd_sender_restrictions = check_policy_service @")
    assert set(names(ran)) == {"no-default-action"}
    assert "default_action=DUNNO" in ran.out


def queue(folder: Path, mode: int = 0o755) -> Path:
    """Postfix's folder for sockets."""
    private = folder / "queue" / "private"
    private.mkdir(parents=True)
    private.chmod(mode)
    return private


def test_a_socket_outside_of_the_chroot(start: Start, examine: Examine, folder: Path) -> None:
    daemon = start(server={"listen": [f"unix:{folder}/policy.sock"], "unix_mode": "0666"})
    ran = examine(daemon, SENDER)
    assert set(names(ran)) == {"unreachable"}
    assert f"{folder}/queue{folder}/policy.sock to Postfix" in ran.out
    assert names(examine(daemon, SENDER, chroot="n", options="smtpd_sasl_auth_enable=yes")) == ["unreachable"]  # smtp's


def test_a_socket_inside_of_the_chroot_is_right(start: Start, examine: Examine, folder: Path) -> None:
    daemon = start(server={"listen": [f"unix:{queue(folder)}/policy"], "unix_mode": "0666"})
    assert names(examine(daemon, SENDER.replace("@", "unix:private/policy"))) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_socket_that_postfix_may_not_connect_to(start: Start, examine: Examine, folder: Path) -> None:
    require("postfix")
    daemon = start(server={"listen": [f"unix:{queue(folder)}/policy"], "unix_mode": "0600"})
    wired = SENDER.replace("@", "unix:private/policy")
    assert set(names(examine(daemon, wired))) == {"unreachable"}
    (folder / "queue" / "private" / "policy").chmod(0o660)
    shutil.chown(folder / "queue" / "private" / "policy", group="postfix")
    assert names(examine(daemon, wired)) == []
    (folder / "queue" / "private").chmod(0o700)
    assert set(names(examine(daemon, wired))) == {"unreachable"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_socket_that_is_hidden_from_this_user_is_no_fault(start: Start, examine: Examine, folder: Path) -> None:
    private = queue(folder)
    daemon = start(server={"listen": [f"unix:{private}/policy"], "unix_mode": "0666"})
    assert names(examine(daemon, SENDER.replace("@", "unix:private/policy"))) == []
    shutil.chown(private, "postfix")
    private.chmod(0o700)
    postfix = postconf.read(folder / "postfix")
    os.seteuid(1)
    try:
        assert list(unreachable(postfix, [private / "policy"])) == []
    finally:
        os.seteuid(0)


def test_two_services_on_one_port(daemon: Ratelimitd, examine: Examine) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::1", daemon.port))
        other.listen()
        ran = examine(daemon, SENDER.replace("@", f"inet:localhost:{daemon.port}"))
    assert says(ran, "shared-port", f"port {daemon.port}, at ::1")


def test_a_service_of_postfix_on_our_port(daemon: Ratelimitd, examine: Examine) -> None:
    ran = examine(daemon, SENDER, more=f"127.0.0.1:{daemon.port} inet n - n - - spawn")
    assert says(ran, "shared-port", f"127.0.0.1:{daemon.port}")


def test_no_daemon_and_another_in_its_place(start: Start, examine: Examine) -> None:
    daemon = start()
    daemon.stop()
    assert names(examine(daemon, SENDER)) == ["not-running"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", daemon.port))
        other.listen()
        assert names(examine(daemon, SENDER)) == ["not-running", "shared-port"]


def test_requests_without_a_login(start: Start, examine: Examine) -> None:
    daemon = start()
    with daemon.client() as client:
        for _ in range(25):
            client.ask("")
        assert says(examine(daemon, SENDER), "without-login", "all 25 requests")
        client.ask("alice@example.com")
        assert names(examine(daemon, SENDER)) == []


def test_bare_and_qualified_logins(start: Start, examine: Examine) -> None:
    daemon = start()
    with daemon.client() as client:
        for login in ("alice", "alice@example.com", "bob"):
            client.ask(login)
    assert says(examine(daemon, SENDER), "two-names", "alice and alice@example.com", 'default_domain = "example.com"')


def test_ways_of_writing_a_login_that_a_password_check_may_take_for_one(start: Start, examine: Examine) -> None:
    daemon = start()
    with daemon.client() as client:
        for login in ("müller@example.com", "alice@example.com", "Muller@example.org", "山田@example.com"):
            client.ask(login)
        assert names(examine(daemon, SENDER)) == []
        for login in ("alicé@example.com", "al\u200bice@example.com", "mu\u0308ller@example.com"):
            client.ask(login)
        pairs = ["alice@example.com and alicé@example.com", "(logins like that: 3)", "[keys] ascii = true"]
        assert says(examine(daemon, SENDER), "spellings", *pairs)
        daemon.file.write_text(daemon.file.read_text() + "[keys]\nascii = true\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is reloaded")
    assert names(examine(daemon, SENDER)) == []


def test_logins_of_a_user_that_are_one_account_since_a_reload_are_not_told(start: Start, examine: Examine) -> None:
    limits = [{"name": "daily"}, {"name": "hourly", "period": "hourly"}]
    daemon = start(limit=limits)
    with daemon.client() as client:
        for login in ("alice", "alice@example.com"):
            client.ask(login)
    assert says(examine(daemon, SENDER), "two-names", "counted separately: one user")
    text = daemon.file.read_text(encoding="utf-8")
    daemon.file.write_text(f'{text}[keys]\ndefault_domain = "example.com"\n', encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("the configuration is reloaded")
    assert names(examine(daemon, SENDER)) == []


ANYTHING = [f"alice@y{number}.example" for number in range(8)]


@pytest.fixture
def processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`processes(["saslauthd", "-r"], ...)`: what runs on this machine."""
    proc = folder / "proc"
    proc.mkdir()
    monkeypatch.setattr(sasl, "PROC", proc)

    def run(*commands: list[str]) -> None:
        for number, command in enumerate(commands):
            (proc / str(number)).mkdir()
            (proc / str(number) / "comm").write_text(Path(command[0]).name + "\n")
            (proc / str(number) / "cmdline").write_text("".join(f"{word}\0" for word in command))

    return run


def asking_saslauthd(folder: Path, method: str = "saslauthd") -> str:
    """main.cf of a Postfix that checks passwords so."""
    (folder / "sasl").mkdir()
    (folder / "sasl" / "smtpd.conf").write_text(f"pwcheck_method: {method}\nmech_list: PLAIN LOGIN\n")
    return f"{SENDER}\ncyrus_sasl_config_path = {folder}/sasl"


Run = Callable[..., None]


@pytest.mark.parametrize("command", [["saslauthd"], ["/usr/sbin/saslauthd", "-a", "pam", "-cm", "/run/r", "-n", "5"]])
def test_a_saslauthd_that_ignores_the_domain(
    start: Start, examine: Examine, folder: Path, processes: Run, command: list[str]
) -> None:
    daemon = start()
    processes(["bash"], command, [*command, "-r"])
    main_cf = asking_saslauthd(folder)
    assert says(examine(daemon, main_cf), "realm-ignored", f"{folder}/sasl/smtpd.conf", "without -r", "[keys] domains")
    with daemon.client() as client:
        for login in [*ANYTHING, "bob@a.example", "bob@b.example", "carol"]:
            client.ask(login)
    assert says(examine(daemon, main_cf), "realm-ignored", "alice has sent under 8 domains")


def test_a_saslauthd_that_is_not_seen_is_suspected_where_many_domains_were(
    start: Start, examine: Examine, folder: Path, processes: Run
) -> None:
    daemon = start()
    main_cf = asking_saslauthd(folder)
    assert names(examine(daemon, main_cf)) == []
    with daemon.client() as client:
        for login in ANYTHING:
            client.ask(login)
    assert says(examine(daemon, main_cf), "realm-ignored", "alice has sent under 8 domains", "start saslauthd with -r")


@pytest.mark.parametrize(
    ("method", "command"),
    [("saslauthd", ["saslauthd", "-a", "pam", "-cr"]), ("auxprop", ["saslauthd"]), ("auxprop", ["bash"])],
)
def test_nothing_is_said_of_a_password_check_that_knows_domains(
    start: Start, examine: Examine, folder: Path, processes: Run, method: str, command: list[str]
) -> None:
    daemon = start()
    processes(command)
    with daemon.client() as client:
        for login in ANYTHING:
            client.ask(login)
    assert names(examine(daemon, asking_saslauthd(folder, method))) == []


def test_nothing_is_said_where_the_real_domains_are_named(
    start: Start, examine: Examine, folder: Path, processes: Run
) -> None:
    processes(["saslauthd"])
    daemon = start(keys={"domains": ["example.com"], "default_domain": "example.com"})
    with daemon.client() as client:
        for login in ANYTHING:
            client.ask(login)
    assert names(examine(daemon, asking_saslauthd(folder))) == []
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": len(ANYTHING)}


def test_without_a_configuration_of_postfix_that_is_said_beside_what_is_found_of_the_daemon(
    start: Start, ctl_of: Ctl, folder: Path
) -> None:
    require("postfix")
    daemon = start()
    with daemon.client() as client:
        for _ in range(20):
            client.ask("")
    ran = ctl_of(daemon, "doctor", "--postfix-config", str(folder / "nothing"), "--json")
    assert names(ran) == ["without-login", "postfix-unread"]
    missing = f"Postfix cannot be examined: postconf: open {folder}/nothing/main.cf: No such file or directory"
    assert ran.json["faults"][1]["what"] == missing


@pytest.mark.parametrize("backend", ["sqlite", "mysql", "postgresql"])
def test_a_store_that_is_unavailable(start: Start, examine: Examine, backend: str) -> None:
    port = free_port()
    daemon = start(store={"backend": backend, "port": port, "timeout_s": 0.1, "flush_interval_s": 0.1})
    with ExitStack() as holding:
        if backend == "sqlite":
            connection = sqlite3.connect(daemon.state / "ratelimit.sqlite3", isolation_level=None)
            holding.enter_context(closing(connection)).execute("BEGIN EXCLUSIVE")
        with daemon.client() as client:
            client.ask("alice@example.com")
        daemon.wait_for_log("the store is unavailable")
        why = "locked" if backend == "sqlite" else f"127.0.0.1:{port}"
        assert says(examine(daemon, SENDER), "store-unavailable", f"{backend}:", why, "ratelimitctl check")
    if backend == "sqlite":
        daemon.wait_for_log("the store is available again")
        assert names(examine(daemon, SENDER)) == []


def test_what_is_to_be_put_into_a_list_leaves_the_rest_of_it_as_it_is(daemon: Ratelimitd, examine: Examine) -> None:
    other = "check_policy_service { inet:192.0.2.7:7, default_action=DUNNO }"
    ran = examine(daemon, f"smtpd_sender_restrictions = reject_non_fqdn_sender {other}, permit_mynetworks")
    ours = f"reject_unlisted_recipient, check_policy_service {{ inet:{daemon.listen[0]}"
    assert says(ran, "not-wired", f"= reject_non_fqdn_sender, {other}, {ours}")


def test_several_faults_are_all_named(daemon: Ratelimitd, examine: Examine) -> None:
    wired = f"smtpd_client_restrictions = check_policy_service {{ @, try_limit=1 }}\nx{free_port()} = 1"
    assert set(names(examine(daemon, wired))) == {"too-early", "try-limit", "no-default-action"}
