"""The fragments for main.cf, in a real Postfix."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing, require
from tests.daemon.process import Ratelimitd, config
from tests.instances.mariadb import MariaDB
from tests.instances.ports import free_port
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

FRAGMENTS = Path(__file__).parents[2] / "contrib" / "postfix"
ADDRESS = "127.0.0.1:10032"


def settings(name: str) -> dict[str, str]:
    """The settings of a fragment, each on one line."""
    text = re.sub(r"^#.*\n", "", (FRAGMENTS / name).read_text(), flags=re.M)
    text = re.sub(r"\n[ \t]+", " ", text)
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}


def codes(postfix: Postfix, recipients: int) -> list[int]:
    with Smtp(postfix.port) as smtp:
        smtp.xclient(login="alice@example.com")
        return [r.code for r in smtp.message("a@example.com", *[f"{n}@example.net" for n in range(recipients)])]


@pytest.mark.real
@pytest.mark.parametrize(
    ("fragment", "answers"),
    [
        ("sender-restrictions.cf", [[250, 250, 250, 250, 250], [250, 250, 450, 450, 250]]),
        ("data-restrictions.cf", [[250, 250, 250, 250, 250], [250, 250, 250, 250, 450]]),
        ("unix-socket.cf", [[250, 250, 250, 250, 250], [250, 250, 450, 450, 250]]),
    ],
)
def test_a_fragment_limits_what_a_real_postfix_takes(
    folder: Path, postfix: Postfix, fragment: str, answers: list[list[int]]
) -> None:
    if os.geteuid() != 0:
        missing("only root starts Postfix")
    postfix.start({"smtpd_sender_restrictions": ""}, xclient=True)  # makes its queue folder
    postfix.stop()
    address = f"127.0.0.1:{free_port()}"
    tables: dict[str, Any] = {"server": {"listen": [address]}}
    if fragment == "unix-socket.cf":  # in a folder that only Postfix and root may enter, by a daemon that is neither
        tables["user"] = "daemon"
        tables["server"] = {"listen": [f"unix:{postfix.queue}/private/ratelimitd"], "unix_mode": "0660"}
        tables["server"]["unix_group"] = "postfix"
    daemon = Ratelimitd(folder, config(limit=[{"quota": 4, "period": "monthly"}], **tables))
    daemon.start()
    try:
        main_cf = {key: value.replace(ADDRESS, address) for key, value in settings(fragment).items()}
        assert len(main_cf) == 1
        postfix.start(main_cf, xclient=True)
        assert [codes(postfix, 3), codes(postfix, 3)] == answers
    finally:
        daemon.kill()


def sent(postfix: Postfix, sender: str) -> list[int]:
    """The replies to MAIL, RCPT and DATA of a mail that alice sends under this address."""
    with Smtp(postfix.port) as smtp:
        smtp.xclient(login="alice@example.com")
        return [reply.code for reply in smtp.message(sender, "b@example.net")]


@pytest.fixture
def clients(mariadb: MariaDB, database: str, folder: Path) -> Path:
    """clients.cf as it stands there, but for the account and where the server is, beside the table that it asks."""
    require("postfix-mysql")
    mariadb.sql("CREATE TABLE mail_user (email VARCHAR(255) PRIMARY KEY, active BOOL)", database)
    mariadb.sql("INSERT INTO mail_user VALUES ('on@example.com', 1), ('off@example.com', 0)", database)
    mariadb.sql(f"GRANT SELECT ON {database}.* TO postfix@'127.0.0.1' IDENTIFIED BY 'its password'", database)
    here = {
        "hosts = 127.0.0.1": f"hosts = 127.0.0.1:{mariadb.port}",
        "password = change-me": "password = its password",
        "dbname = mail": f"dbname = {database}",
    }
    text = (FRAGMENTS / "clients.cf").read_text()
    for line, ours in here.items():
        assert text.count(f"\n{line}\n") == 1
        text = text.replace(line, ours)
    file = folder / "clients.cf"
    file.write_text(text)
    file.chmod(0o640)
    shutil.chown(file, "root", "postfix")
    return file


@pytest.fixture
def chained(folder: Path, postfix: Postfix, clients: Path) -> Iterator[Ratelimitd]:
    """A daemon with a quota of 2, and the Postfix that asks it behind the access table."""
    daemon = Ratelimitd(folder, config(limit=[{"quota": 2}]))
    daemon.start()
    try:
        [(name, value)] = settings("sasl-mysql.cf").items()
        value = value.replace("/etc/postfix/clients.cf", str(clients)).replace(ADDRESS, f"127.0.0.1:{daemon.port}")
        postfix.start({name: value}, xclient=True)
        yield daemon
    finally:
        daemon.kill()


@pytest.mark.real
def test_behind_an_access_table_in_mysql_senders_are_limited_and_those_it_refuses_are_not_counted(
    chained: Ratelimitd, postfix: Postfix
) -> None:
    assert sent(postfix, "off@example.com") == [250, 554]
    assert sent(postfix, "on@example.com") == [250, 250, 250]
    assert sent(postfix, "ON@Example.com") == [250, 250, 250]
    assert sent(postfix, "on@example.com") == [250, 450]
    assert sent(postfix, "of.none@example.com") == [250, 450]
    assert chained.stop() == 0
    assert chained.used() == {"alice@example.com": 4}
    postfix.stop()
    assert "554 5.7.1 <off@example.com>: Sender address rejected: this sender is blocked" in postfix.log()


@pytest.mark.real
def test_an_access_table_that_says_ok_ends_the_list_as_its_comment_warns(
    chained: Ratelimitd, postfix: Postfix, clients: Path
) -> None:
    assert "An entry with OK ends the list: that sender is not counted." in (FRAGMENTS / "sasl-mysql.cf").read_text()
    clients.write_text(clients.read_text().replace("'DUNNO'", "'OK'"))  # smtpd reads it when it begins
    assert [sent(postfix, "on@example.com") for _ in range(3)] == [[250, 250, 250]] * 3
    assert chained.stop() == 0
    assert chained.used() == {}


@pytest.mark.real
def test_an_access_table_that_cannot_be_asked_defers_all_mail_uncounted(
    chained: Ratelimitd, postfix: Postfix, mariadb: MariaDB, database: str
) -> None:
    assert (
        "While the database cannot be asked, Postfix defers all mail (451)."
        in (FRAGMENTS / "sasl-mysql.cf").read_text()
    )
    mariadb.sql("DROP TABLE mail_user", database)
    assert sent(postfix, "on@example.com") == [250, 451]
    assert chained.stop() == 0
    assert chained.used() == {}


@pytest.mark.real
def test_a_mistyped_address_of_an_own_domain_is_not_counted(folder: Path, postfix: Postfix) -> None:
    daemon = Ratelimitd(folder, config())
    daemon.start()
    try:
        main_cf = {
            name: value.replace(ADDRESS, f"127.0.0.1:{daemon.port}")
            for name, value in settings("sender-restrictions.cf").items()
        }
        own = {"mydestination": "example.org", "local_recipient_maps": "inline:{bob=x}"}
        postfix.start(main_cf | own, xclient=True)
        with Smtp(postfix.port) as smtp:
            smtp.xclient(login="alice@example.com")
            replies = smtp.message("a@example.com", "bbo@example.org", "bob@example.org", "obb@example.org")
        assert [reply.code for reply in replies] == [250, 550, 250, 550, 250]
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert daemon.used() == {"alice@example.com": 1}


@pytest.mark.real
def test_the_mail_to_try_is_sent_and_counted(folder: Path, postfix: Postfix) -> None:
    require("curl")
    text = (FRAGMENTS / "sender-restrictions.cf").read_text(encoding="utf-8")
    [command] = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#     curl ")]
    daemon = Ratelimitd(folder, config())
    daemon.start()
    postfix.add_user("alice", "example.com", "secret")
    try:
        service = f"check_policy_service {{ inet:127.0.0.1:{daemon.port}, default_action=DUNNO }}"
        postfix.start({"smtpd_sender_restrictions": service})
        here = command.replace("mail.example.com:587", f"127.0.0.1:{postfix.port}").replace("--ssl-reqd ", "")
        ran = subprocess.run(["bash", "-c", here.replace("PASSWORD", "secret")], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert daemon.used() == {"alice@example.com": 1}


def test_every_fragment_asks_the_service_with_a_time_and_a_default() -> None:
    for name in ("sender-restrictions.cf", "sasl-mysql.cf", "data-restrictions.cf", "unix-socket.cf"):
        (value,) = settings(name).values()
        assert re.search(r"check_policy_service \{ \S+, timeout=10s, default_action=DUNNO \}$", value), name
    assert settings("sasl-mysql.cf")["smtpd_sender_restrictions"].startswith(
        "check_sender_access mysql:/etc/postfix/clients.cf, reject_unlisted_recipient, check_policy_service"
    )
    assert {"hosts", "user", "password", "dbname", "query"} == set(settings("clients.cf"))
