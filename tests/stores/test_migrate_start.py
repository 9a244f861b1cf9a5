"""Before `migrate` changes anything: rights, and a Perl daemon that still runs. And what it says, also of failures."""

import itertools
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimitd.ctl import main as ctl
from ratelimitd.ctl.migrate import perl as perl_daemon
from ratelimitd.ctl.migrate.rights import Rights
from ratelimitd.errors import StoreError
from tests.instances.mariadb import MariaDB
from tests.stores.perl_table import LATER, Perl, no_perl_daemon

_numbers = itertools.count(1)
real = pytest.mark.real

# -- rights ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(perl: Perl) -> Perl:
    """The Perl daemon's table, and its account: SELECT, INSERT, UPDATE, DELETE."""
    perl.seed(("alice", 0, 1000, 5, LATER))
    database, name = perl.database, f"small_{perl.database}"
    perl.sql(
        f"DROP USER IF EXISTS {name}@localhost; CREATE USER {name}@localhost IDENTIFIED BY 'x';"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {name}@localhost"
    )
    text = perl.file.read_text(encoding="utf-8")
    perl.file.write_text(text.replace('user = "root"', f'user = "{name}"\npassword = "x"'), encoding="utf-8")
    return perl


def lacking(perl: Perl, *, back: bool) -> str:
    """The statements with which it is refused, and without a change."""
    before = perl.sql("SHOW CREATE TABLE ratelimit; SELECT * FROM ratelimit; SHOW TABLES")
    with pytest.raises(StoreError) as caught:
        perl.migrate(back=back)
    assert perl.sql("SHOW CREATE TABLE ratelimit; SELECT * FROM ratelimit; SHOW TABLES") == before
    _, found, statements = str(caught.value).partition("the account lacks rights; an administrator must run: ")
    assert found
    planned = perl.migrate(dry_run=True, back=back)
    assert f"would be refused: the account lacks rights; an administrator must run: {statements}" in planned
    return statements


@real
def test_what_the_account_lacks_is_said_before_anything_changes_and_is_enough_as_pasted(small: Perl) -> None:
    database = small.database
    there = lacking(small, back=False)
    who = f"'small_{database}'@'localhost'"
    assert there == f"GRANT ALTER, CREATE, CREATE VIEW ON `{database}`.* TO {who};"
    small.sql(there)
    (left,) = [line for line in small.migrate() if line.startswith("view_ratelimit is left as it is")]
    assert left.endswith(f"; GRANT DROP ON `{database}`.`view_ratelimit` TO {who};")
    back = lacking(small, back=True)
    assert back == f"GRANT DROP ON `{database}`.`view_ratelimit` TO {who};"
    small.sql(back)
    small.migrate(back=True)
    assert small.sql("SELECT sender, used, expirytime > NOW() FROM view_ratelimit") == [("alice", "5", "1")]
    again = lacking(small, back=False)
    assert again == f"GRANT DROP ON `{database}`.`ratelimit_aside` TO {who};"
    small.sql(again)
    small.migrate()
    assert ("ratelimit_aside",) not in small.sql("SHOW TABLES")


@real
@pytest.mark.parametrize("other", ["EXECUTE", "CREATE VIEW"])  # with the latter it is told that there is a table
def test_a_table_that_the_account_may_not_read_is_not_one_that_is_missing(small: Perl, other: str) -> None:
    who = f"'small_{small.database}'@'localhost'"
    small.sql(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {who}; GRANT {other} ON {small.database}.* TO {who}")
    lacks = f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{small.database}`.* TO {who};"
    said = f"the account sees nothing of a table ratelimit; an administrator must run: {lacks}"
    for back in (False, True):
        with pytest.raises(StoreError, match=re.escape(said)):
            small.migrate(back=back)


@real
def test_rights_that_come_with_a_role_count(small: Perl) -> None:
    database = small.database
    role, user = f"role_{database}", f"small_{database}@localhost"
    small.sql(f"CREATE ROLE {role}; GRANT ALTER, CREATE, CREATE VIEW, DROP ON {database}.* TO {role}")
    small.sql(f"GRANT {role} TO {user}")
    lacking(small, back=False)  # it is not active
    is_mariadb = "MariaDB" in small.sql("SELECT VERSION()")[0][0]
    small.sql(f"SET DEFAULT ROLE {role} {'FOR' if is_mariadb else 'TO'} {user}")
    small.migrate()
    small.migrate(back=True)
    small.sql(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("lines", "may"),
    [
        (["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"], True),
        (["GRANT USAGE ON *.* TO `p`@`%`", "GRANT SELECT, ALTER, DROP ON `policyd`.* TO `p`@`%`"], True),
        (["GRANT SELECT, ALTER ON `policyd`.`ratelimit` TO `p`@`%`"], True),
        (["GRANT ALTER ON `policyd`.`other` TO `p`@`%`"], False),
        (["GRANT ALTER ON `policy_`.* TO `p`@`%`"], True),
        (["GRANT ALTER ON `policy\\_`.* TO `p`@`%`"], False),
        (["GRANT ALTER ON `pol%`.* TO `p`@`%`"], True),
        (["GRANT ALTER ON `policy_`.`ratelimit` TO `p`@`%`"], False),
        (["GRANT ALTER ROUTINE, SELECT (`a`, `b`) ON `policyd`.* TO `p`@`%`"], False),
        (["GRANT ALTER ON *.* TO `p`@`%`", "REVOKE ALTER ON `policyd`.* FROM `p`@`%`"], False),
        (["GRANT `r`@`%` TO `p`@`%`", "GRANT PROXY ON ''@'%' TO 'p'@'%'"], False),
    ],
)
def test_a_right_is_read_as_the_server_says_it(lines: list[str], may: bool) -> None:
    assert Rights(lines).may("ALTER", "policyd", "ratelimit") is may


# -- a Perl daemon that runs -------------------------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /proc, with nothing in it."""
    no_perl_daemon(monkeypatch, tmp_path)
    folder = tmp_path / "proc"
    folder.mkdir()
    monkeypatch.setattr(perl_daemon, "PROC", folder)
    return folder


@pytest.fixture
def renamed(processes: Path) -> Iterator[str]:
    """A real process of Perl that has renamed itself, as the daemon does; its number."""
    script = '$0 = "/opt/ratelimit-policyd/daemon.pl"; $| = 1; print "ready\\n"; <STDIN>'
    with subprocess.Popen(["perl", "-e", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (processes / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        yield str(process.pid)
        process.kill()


def test_its_process_is_noticed_by_the_name_that_it_gives_itself(renamed: str) -> None:
    (found,) = perl_daemon.running([])
    who = pwd.getpwuid(os.geteuid()).pw_name
    assert found.startswith(f"process {renamed} of {who} is /opt/ratelimit-policyd/daemon.pl: stop it first")


def process(folder: Path, number: int, program: str, *words: str, cwd: str = "/") -> None:
    made = folder / str(number)
    made.mkdir()
    (made / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    (made / "exe").symlink_to(program)
    (made / "cwd").symlink_to(cwd)


@pytest.mark.parametrize(
    ("program", "words", "cwd", "is_one"),
    [
        ("/usr/bin/perl", ["/usr/bin/perl", "/opt/send_rate_policyd/daemon.pl"], "/", True),
        ("/usr/bin/perl", ["perl", "./daemon.pl"], "/opt/ratelimit-policyd", True),
        ("/usr/bin/perl5.36-x86_64", ["perl", "-w", "/usr/local/sbin/ratelimit-policyd.pl"], "/", True),
        ("/usr/bin/perl", ["perl", "/usr/share/other/daemon.pl"], "/", False),
        ("/usr/bin/perl", ["/usr/sbin/amavisd-new (master)"], "/", False),
        ("/usr/bin/python3.11", ["python3", "/usr/bin/ratelimit-policyd"], "/", False),
        ("/usr/bin/vim", ["vim", "/opt/ratelimit-policyd/daemon.pl"], "/", False),
    ],
)
def test_others_are_not_taken_for_it(processes: Path, program: str, words: list[str], cwd: str, is_one: bool) -> None:
    process(processes, 77, program, *words, cwd=cwd)
    assert bool(list(perl_daemon.running([]))) is is_one


@pytest.mark.parametrize(
    ("comm", "words", "is_one"),
    [
        ("perl", ["/usr/bin/perl", "/opt/ratelimit-policyd/daemon.pl"], True),
        ("daemon.pl", ["/usr/bin/perl", "/opt/ratelimit-policyd/daemon.pl"], True),
        ("ratelimit-polic", ["ratelimit-policyd"], True),
        ("tail", ["tail", "-f", "/var/log/ratelimit-policyd.log"], False),
        ("vim", ["vim", "/opt/ratelimit-policyd/daemon.pl"], False),
    ],
)
def test_who_may_not_see_what_a_process_runs_goes_by_its_name(
    processes: Path, monkeypatch: pytest.MonkeyPatch, comm: str, words: list[str], is_one: bool
) -> None:
    process(processes, 77, "/usr/bin/unknown", *words)
    (processes / "77" / "comm").write_text(f"{comm}\n")
    readlink = Path.readlink

    def refused(path: Path) -> Path:
        if path.name in ("exe", "cwd"):
            raise PermissionError(13, "Permission denied")
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", refused)
    assert bool(list(perl_daemon.running([]))) is is_one


def test_its_pid_file_names_it_only_while_a_program_of_perl_runs_under_that_number(
    processes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ratelimit-policyd.pid"
    monkeypatch.setattr(perl_daemon, "PID_FILES", (file,))
    for text, found in (("77\n", 1), ("78\n", 0), ("79\n", 0), ("", 0), ("x", 0)):
        file.write_text(text)
        if not processes.joinpath("77").exists():
            process(processes, 77, "/usr/bin/perl", "perl", "/srv/mail/limit")
            process(processes, 78, "/usr/bin/python3", "python3")
        assert len(list(perl_daemon.running([]))) == found, text


class Service:
    """Something that listens, and answers a line."""

    def __init__(self, answer: bytes) -> None:
        self.asked: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.asked.append(connection.recv(100))
            connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(60)
        self._listener.close()


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [(b"Printing shm:\r\nDomain\t\t:\tQuota\r\n", True), (b"220 mail.example ESMTP\r\n", False), (b"", False)],
)
def test_it_is_known_by_its_answer_where_ours_is_to_listen(processes: Path, answer: bytes, is_one: bool) -> None:
    service = Service(answer)
    try:
        found = list(perl_daemon.running([service.address, "unix:/nowhere"]))
    finally:
        service.close()
    assert service.asked == [b"printshm\n"]
    assert [line.startswith(f"{service.address} answers as it does") for line in found] == [True] * is_one


@real
def test_while_it_runs_nothing_is_migrated_but_a_dry_run_goes_on(
    mariadb: MariaDB, tmp_path: Path, renamed: str
) -> None:
    database = f"start{next(_numbers)}_{os.getpid()}"
    mariadb.sql(f"CREATE DATABASE {database}")
    perl = Perl(mariadb, database, tmp_path)
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.sql("UPDATE ratelimit SET updated = NOW()")
    before = perl.sql("SHOW CREATE TABLE ratelimit; SHOW TABLES")
    refusal = f"the Perl daemon is running: process {renamed} of .*; if that is not .* run it with --perl-stopped"
    with pytest.raises(StoreError, match=refusal):
        perl.migrate()
    planned = perl.migrate(dry_run=True)
    assert perl.sql("SHOW CREATE TABLE ratelimit; SHOW TABLES") == before
    assert any(line.startswith("would be refused: the Perl daemon is running: ") for line in planned)
    assert any(line.startswith("a row was written ") for line in planned)
    assert any(line.startswith("would run: ALTER TABLE") for line in planned)
    # Any user of the machine could look like it, and so does another customer's, on another database.
    done = perl.migrate(perl_stopped=True)
    assert any(re.match(rf"not taken for .*--perl-stopped\): process {renamed} of \S+ is /opt/", line) for line in done)
    assert ("limit_name",) in [(name,) for name, *_ in perl.sql("SHOW COLUMNS FROM ratelimit")]
    mariadb.sql(f"DROP DATABASE {database}")


# -- what is said ------------------------------------------------------------------------------------------------------


@real
def test_what_was_done_before_a_failure_is_said_and_the_next_run_completes_it(
    perl: Perl, capsys: pytest.CaptureFixture[str]
) -> None:
    perl.seed(("Alice", 0, 0, 5, LATER))
    perl.sql("ALTER TABLE ratelimit ADD KEY changes (used)")
    assert ctl.main(["-c", str(perl.file), "migrate"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[:2] for line in lines[-3:]] == [["ran:", "ALTER"], ["ran:", "UPDATE"], ["failed:", "ALTER"]]
    (error,) = printed.err.splitlines()
    assert "Duplicate key name 'changes'" in error
    assert ctl.main(["-c", str(perl.file), "--json", "migrate"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert "Duplicate key name 'changes'" in answer["error"]
    assert answer["done"][-1].startswith("failed: ALTER TABLE")
    perl.sql("ALTER TABLE ratelimit DROP KEY changes")
    assert ctl.main(["-c", str(perl.file), "--json", "migrate"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["error"], answer["done"][-1]) == (None, "now start ratelimitd")
    assert perl.sql("SELECT sender, persist, limit_name FROM ratelimit") == [("alice", "1", "daily")]


@real
def test_a_transaction_that_fails_is_said_to_be_rolled_back(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    perl.sql(
        "INSERT INTO ratelimit (sender, limit_name) VALUES ('alice', 'other');"
        "CREATE TRIGGER no BEFORE DELETE ON ratelimit FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'"
    )
    said: list[str] = []
    with pytest.raises(StoreError, match="no"):
        perl.migrate(back=True, said=said)
    assert said[-2].startswith("failed: DELETE FROM `ratelimit`")
    assert said[-1] == "rolled back: what was done since START TRANSACTION"
    assert perl.sql("SELECT COUNT(*) FROM ratelimit_aside") == [("0",)]


@real
def test_a_reader_that_goes_away_does_not_end_a_migration(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, LATER))
    command = (
        "from pathlib import Path; from ratelimitd.ctl import main; from ratelimitd.ctl.migrate import perl;"
        "perl.PROC = Path('/nowhere'); perl.PID_FILES = (); perl.USUAL = ('127.0.0.1', 1); "
        f"main.main(['-c', {str(perl.file)!r}, 'migrate'])"
    )
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run([sys.executable, "-c", command], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert perl.migrate() == [
        "the table ratelimit is migrated already",
        "1 row, 0 with a sender that is not normalised",
    ]


OTHERS = (
    *("utf8mb4 COLLATE utf8mb4_bin", "utf8mb4 COLLATE utf8mb4_unicode_ci", "utf8mb4 COLLATE utf8mb4_general_ci"),
    *("utf8mb3 COLLATE utf8mb3_bin", "utf8mb3 COLLATE utf8mb3_general_ci", "utf8mb3 COLLATE utf8mb3_unicode_ci"),
    *("latin1 COLLATE latin1_swedish_ci", "ascii COLLATE ascii_general_ci"),
)


@real
def test_a_panels_table_joins_with_ours_whatever_its_collation_and_after_the_way_back(perl: Perl) -> None:
    perl.seed(("alice@example.com", 0, 1000, 5, LATER), ("bob@example.com", 0, 1000, 6, LATER))
    for back in (False, True):
        perl.migrate(back=back)
        for other in OTHERS:
            assert perl.sql(
                "DROP TABLE IF EXISTS users;"
                f"CREATE TABLE users (email VARCHAR(255) CHARACTER SET {other} PRIMARY KEY);"
                "INSERT INTO users VALUES ('alice@example.com'), ('carol@example.com');"
                "SELECT u.email, r.used FROM users u JOIN ratelimit r ON r.sender = u.email;"
                "SELECT r.sender, u.email FROM ratelimit r LEFT JOIN users u ON u.email = r.sender ORDER BY r.sender;"
                "SELECT sender FROM ratelimit WHERE sender NOT IN (SELECT email FROM users);"
                "SELECT COUNT(*) FROM (SELECT email FROM users UNION SELECT sender FROM ratelimit) AS both_of_them"
            ) == [
                ("alice@example.com", "5"),
                ("alice@example.com", "alice@example.com"),
                ("bob@example.com", "NULL"),
                ("bob@example.com",),
                ("3",),
            ], other


@real
def test_a_table_of_the_version_before_joins_after_migrate(perl: Perl) -> None:
    perl.seed(("alice", 0, 1000, 5, LATER))
    perl.migrate()
    whole = perl.sql("SHOW CREATE TABLE ratelimit; SHOW CREATE TABLE ratelimit_history")
    is_mariadb = "MariaDB" in perl.sql("SELECT VERSION()")[0][0]
    before = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
    for table in ("ratelimit", "ratelimit_history"):
        perl.sql(f"ALTER TABLE {table} MODIFY sender VARCHAR(255) COLLATE {before} NOT NULL")
    perl.sql("INSERT INTO ratelimit (sender, used) VALUES ('alice ', 3)")
    perl.migrate()
    assert perl.sql("SHOW CREATE TABLE ratelimit; SHOW CREATE TABLE ratelimit_history")[1] == whole[1]
    assert perl.sql("SELECT sender FROM ratelimit") == [("alice",)]
    assert len(perl.migrate()) == 2


# -- everything else meanwhile ----------------------------------------------------------------------------------------


@real
def test_a_look_at_a_table_that_is_not_migrated_names_the_command_that_says_what_to_do(
    perl: Perl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the line was only `Unknown column 'limit_name' in 'SELECT' (1054)`."""
    perl.seed(("alice", 0, 1000, 5, LATER))
    assert ctl.main(["-c", str(perl.file), "show", "alice"]) == 1
    assert "`ratelimitctl check` says more" in capsys.readouterr().err
    assert ctl.main(["-c", str(perl.file), "check"]) == 2
    assert "is not migrated: run `ratelimitctl migrate`" in "".join(capsys.readouterr())
