"""The fragments for main.cf, in a real Postfix."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.daemon.process import Ratelimitd, config
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
    curl = shutil.which("curl")
    if curl is None:
        missing("curl")
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
