"""Who logs in through a real Dovecot, and whose quota it is: each row of the table in operations.md."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import open_folder, require
from tests.daemon.process import Ratelimitd, config
from tests.instances.dovecot import Dovecot, version
from tests.instances.mariadb import MariaDB
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

pytestmark = pytest.mark.real

PAGE = Path(__file__).parents[2] / "contrib" / "doc" / "operations.md"
CHAPTER = PAGE.read_text(encoding="utf-8").partition("\n## Logins through Dovecot\n")[2].partition("\n## ")[0]
REAL = {"default_domain": "example.com", "domains": ["example.com"], "ascii": True}
SAME = "the same, and "
PASSWORD, MASTER = "secret", "master"


def blocks() -> list[str]:
    """The chapter's blocks: for Dovecot and for main.cf."""
    return re.findall(r"^```\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)


def main_cf() -> dict[str, str]:
    """The settings of the block for main.cf."""
    return dict(line.split(" = ") for line in blocks()[1].splitlines() if not line.startswith("#"))


class Row(NamedTuple):
    """Who logs in (as a master user `whom`, by PLAIN's own means), and what is to come of it; "" for none."""

    case: str
    user: str
    whom: str
    arrives: str  # "": Dovecot refuses
    email: str
    domain: str
    real: str


def table(head: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    lines = CHAPTER.partition(f"\n| {head} | ")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cell: str) -> list[str]:
    """What a cell has in code, without the quotes that show an outer blank."""
    return [re.sub(r'^"(.*)"$', r"\1", span) for span in re.findall(r"`(.+?)`", cell)]


def rows() -> list[Row]:
    """The rows of what arrives."""
    found = []
    for case, who, *results in table("case | who logs in"):
        user, whom = [*code(who), ""][:2]
        assert results[0] == "refused" or all(code(cell) or cell == "none" for cell in results)
        found.append(Row(case, user, whom, *[next(iter(code(cell)), "") for cell in results]))
    return found


ROWS = rows()
CASES = list(dict.fromkeys(row.case for row in ROWS))


def settings(case: str) -> list[tuple[str, str]]:
    """The settings of a case for the Dovecot that is here, each behind the words that say where it belongs."""
    found: list[tuple[str, str]] = []
    for name, *cells in table("case | Dovecot 2.3"):
        cell = cells[version() != (2, 3)].replace("\\|", "|")
        if not cell.startswith(SAME):
            found = []
        for where, setting in re.findall(r"([^`]*)`(.+?)`", cell.removeprefix(SAME)):
            found.append((where.strip("; :").removeprefix("and "), setting))
        if name == case:
            return found
    raise AssertionError(f"{case}: no settings")


@pytest.fixture
def sql(mariadb: MariaDB, database: str) -> str:
    """A database with users: its collation is the default, which ignores case, accents and blanks at the end."""
    require("dovecot-mysql")
    mariadb.sql("CREATE TABLE users (name VARCHAR(64), domain VARCHAR(255), password VARCHAR(255))", database)
    mariadb.sql(f"INSERT INTO users VALUES ('alice', 'example.com', '{{PLAIN}}{PASSWORD}')", database)
    mariadb.sql(f"GRANT SELECT ON {database}.* TO dovecot@localhost IDENTIFIED BY 'password'")
    return database


def configure(dovecot: Dovecot, case: str, queue: Path, mariadb: MariaDB, database: str) -> None:
    """Start Dovecot as the page has it, for this queue of Postfix: with its accounts, and the settings of a case."""
    for name in ("alice", "alice@example.com", "bob@example.com"):
        dovecot.add_user(name, PASSWORD)
    dovecot.add_user("al@example.com", PASSWORD, "user=alice@example.com")
    dovecot.add_user("root", MASTER, master=True)
    places: dict[str, list[str]] = {}
    for where, setting in settings(case):
        places.setdefault(where, []).append(setting.replace("/etc/dovecot/users", str(dovecot.users)))
    lines = places.pop("", [])
    queries = places.pop("SQL", [])
    users = dovecot.passdb(places.pop("in passdb", []))
    masters = [dovecot.passdb(places.pop("in another passdb"), master=True)] if "in another passdb" in places else []
    if inner := places.pop("in another passdb, in protocol imap", []):
        masters = ["protocol imap {\n" + dovecot.passdb(inner, master=True) + "}"]
    assert places == {}
    if queries:
        users = dovecot.sql(queries[-1], mariadb.socket, database, "dovecot", "password")
    dovecot.start(blocks()[0].replace("/var/spool/postfix", str(queue)), *lines, *masters, users)


def send(postfix: Postfix, row: Row, *, in_steps: bool = False) -> int:
    """Log in as a row says, with AUTH PLAIN or LOGIN, and send a mail to one recipient: the reply to the login."""
    password = MASTER if row.whom or row.user.lower().endswith("*root") else PASSWORD
    authorize_as, name = (row.whom, row.user) if row.whom else ("", row.user)
    with Smtp(postfix.port) as smtp:
        reply = smtp.login_in_steps(name, password) if in_steps else smtp.login(name, password, authorize_as)
        if reply.code == 235:
            assert [answer.code for answer in smtp.message("a@example.com", "b@example.org")] == [250, 250, 250]
        smtp.quit()
    return reply.code


def service(daemon: Ratelimitd) -> str:
    return f"check_policy_service {{ inet:127.0.0.1:{daemon.port}, timeout=10s, default_action=DUNNO }}"


@pytest.mark.parametrize("case", CASES)
def test_who_logs_in_has_the_quota_that_the_page_says(
    case: str, dovecot: Dovecot, postfix: Postfix, mariadb: MariaDB, sql: str, folder: Path
) -> None:
    limits = [{"name": "email"}, {"name": "domain", "key": "domain"}]
    with open_folder() as other:
        daemon = Ratelimitd(folder, config(limit=limits, log={"format": "json"}))
        real = Ratelimitd(other, config(keys=REAL, log={"format": "json"}))
        try:
            daemon.start()
            real.start()
            asked = f"{service(daemon)}, {service(real)}"
            postfix.start({"smtpd_sender_restrictions": asked, **main_cf()})
            configure(dovecot, case, postfix.queue, mariadb, sql)
            came = []
            for row in (row for row in ROWS if row.case == case):
                for in_steps in (False, True)[: 1 if row.whom else 2]:
                    assert send(postfix, row, in_steps=in_steps) == (235 if row.arrives else 535), (row, dovecot.log())
                    came += [row] * bool(row.arrives)
            assert daemon.stop() == 0
            assert real.stop() == 0
        finally:
            daemon.kill()
            real.kill()
        assert accounts(daemon) == [(row.arrives, row.email) for row in came]
        assert accounts(real) == [(row.arrives, row.real) for row in came]
        assert daemon.used("domain") == Counter(row.domain for row in came if row.domain)


def accounts(daemon: Ratelimitd) -> list[tuple[str, str]]:
    """What its log has of each mail, in their order: the sasl_username, and the account of the first limit."""
    records = [json.loads(line) for line in daemon.log_file.read_text(encoding="utf-8").splitlines()]
    return [(record["sasl_username"], record["key"]) for record in records if "sasl_username" in record]


def test_every_case_of_the_page_is_tried() -> None:
    assert [name for name, *_ in table("case | Dovecot 2.3")] == CASES
    assert len(ROWS) > 20
