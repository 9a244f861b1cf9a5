"""`ratelimitctl doctor` on the stock configurations of Debian and of panels: no false alarm, and remedies that hold."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.control.conftest import Ctl
from tests.control.panels import PANELS, Panel
from tests.daemon.process import Ratelimitd

pytestmark = pytest.mark.real

HEAD = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = mail.example.com
"""
OURS = "check_policy_service { @, timeout=10s, default_action=DUNNO }"
Doctor = Callable[[str, str], list[dict[str, Any]]]


@pytest.fixture
def doctor(untouched: Ratelimitd, folder: Path, ctl_of: Ctl) -> Doctor:
    """`doctor(main_cf, master_cf)`: the faults that it finds; `@` in either is how the daemon is asked."""
    require("postfix")

    def run(main: str, master: str) -> list[dict[str, Any]]:
        etc = folder / "postfix"
        etc.mkdir(exist_ok=True)
        ours = f"inet:{untouched.listen[0]}"
        (etc / "main.cf").write_text(HEAD.format(folder=folder) + main.replace("@", ours))
        (etc / "master.cf").write_text(master.replace("@", ours))
        os.utime(etc / "main.cf", (0, 0))
        faults: list[dict[str, Any]]
        faults = ctl_of(untouched, "doctor", "--postfix-config", str(etc), "--json").json["faults"]
        return faults

    return run


def applied(line: Mapping[str, str], main: str, master: str) -> tuple[str, str]:
    """main.cf and master.cf with a line: at the end of main.cf, where the last one holds; or in place of a -o."""
    if line["file"] == "main.cf":
        return f"{main}{line['text']}\n", master
    found = re.match(r"  -o (?:\{ )?(\w+)", line["text"])
    assert found is not None
    block = re.compile(rf"^{re.escape(line['under'])} .*\n(?:[ ].*\n)*", re.MULTILINE)

    def edited(match: re.Match[str]) -> str:
        kept = re.sub(rf"^  -o (?:\{{ )?{found[1]}\b.*\n", "", match[0], flags=re.MULTILINE)
        return f"{kept}{line['text']}\n"

    return main, block.sub(edited, master, count=1)


def healed(doctor: Doctor, main: str, master: str, at_most: int) -> tuple[str, str]:
    """Apply the lines of the first fault until there is none."""
    for _ in range(at_most):
        faults = doctor(main, master)
        if not faults:
            break
        for line in faults[0]["lines"]:
            main, master = applied(line, main, master)
    assert doctor(main, master) == []
    return main, master


@pytest.mark.parametrize("name", PANELS)
def test_only_the_services_where_users_log_in_are_said_not_to_ask(doctor: Doctor, name: str) -> None:
    panel = PANELS[name]
    faults = doctor(panel.main, panel.master)
    assert {fault["name"] for fault in faults} == {"not-wired"}
    asked = [re.match(r"the service (\S+), where users log in, never asks", fault["what"]) for fault in faults]
    assert tuple(found[1] for found in asked if found) == panel.logins


@pytest.mark.parametrize("name", PANELS)
def test_the_remedies_leave_nothing_that_is_wrong(doctor: Doctor, name: str) -> None:
    panel = PANELS[name]
    healed(doctor, panel.main, panel.master, at_most=len(panel.logins))


def wired(panel: Panel, list_name: str, before: str = "", behind: str = "") -> str:
    """main.cf of a panel in which a list asks us, before or behind one of its restrictions."""
    found = re.search(rf"^{list_name} = ((?:.*\n)(?:[ ].*\n)*)", panel.main, re.MULTILINE)
    assert found is not None
    word = before or behind
    asking = f"{OURS}, {word}" if before else f"{word}, {OURS}"
    changed = re.sub(rf"\b{word}\b", asking, found[1], count=1)
    assert changed != found[1]
    return panel.main.replace(found[1], changed, 1)


SENDER, RECIPIENT = "smtpd_sender_restrictions", "smtpd_recipient_restrictions"
FOUND = {
    "ISPConfig, mynetworks first": (
        "ISPConfig", RECIPIENT, {"behind": "permit_mynetworks"}, {"too-early", "passed-by"},
    ),
    "ISPConfig, before mynetworks": ("ISPConfig", SENDER, {"before": "permit_mynetworks"}, {"too-early"}),
    "ISPConfig, behind mynetworks": (
        "ISPConfig", SENDER, {"behind": "reject_authenticated_sender_login_mismatch"}, {"too-early", "passed-by"},
    ),
    "iRedMail, as it asks its own service": ("iRedMail", RECIPIENT, {"before": "permit_mynetworks"}, set()),
    "iRedMail, first": ("iRedMail", RECIPIENT, {"before": "reject_unlisted_recipient"}, {"too-early"}),
    "iRedMail, behind mynetworks": ("iRedMail", RECIPIENT, {"behind": "permit_mynetworks"}, {"passed-by"}),
    "iRedMail, at the sender": ("iRedMail", SENDER, {"before": "permit_mynetworks"}, {"too-early"}),
    "Modoboa, behind the logins": ("Modoboa", RECIPIENT, {"behind": "permit_sasl_authenticated"}, {"counts-nothing"}),
    "Modoboa, first": ("Modoboa", RECIPIENT, {"before": "permit_mynetworks"}, set()),
    "mailcow, before the logins": ("mailcow", RECIPIENT, {"before": "permit_sasl_authenticated"}, set()),
    "mailcow, behind the networks of Docker": ("mailcow", SENDER, {"behind": "permit_mynetworks"}, {"passed-by"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOUND)
def test_where_a_panel_asks_too_early_or_too_late(doctor: Doctor, kind: str) -> None:
    name, list_name, where, expected = FOUND[kind]
    panel = PANELS[name]
    main = wired(panel, list_name, **where)
    assert {fault["name"] for fault in doctor(main, panel.master)} == expected
    healed(doctor, main, panel.master, at_most=3)
