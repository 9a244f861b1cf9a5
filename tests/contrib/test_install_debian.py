"""contrib/install.sh as root runs it, without DESTDIR: on Debian 12, and on 13 after an upgrade of the system."""

import shutil
from pathlib import Path

import pytest

from tests.instances.chroot import Debian
from tests.instances.ports import free_port

ROOT = Path(__file__).parents[2]
CHECKOUT = "/root/ratelimitd"
LIB = "/usr/local/lib/ratelimitd"
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
ASK = (
    "exec 3<>/dev/tcp/127.0.0.1/$0; "
    r"printf '%s\n' request=smtpd_access_policy protocol_state=DATA sasl_username=alice@example.com "
    "recipient_count=3 '' >&3; head -n 1 <&3"
)
USED = (
    "import sqlite3; "
    "print(*sqlite3.connect('/var/lib/ratelimitd/ratelimit.sqlite3').execute('SELECT used FROM ratelimit'))"
)
KEPT = ["/etc/ratelimitd.toml", "/var/lib/ratelimitd", "/var/log/ratelimitd"]

pytestmark = pytest.mark.real


def checked_out(debian: Debian, folder: Path) -> None:
    """A checkout in root's home, which nobody else may enter."""
    if not (folder / "checkout").exists():
        shutil.copytree(ROOT, folder / "checkout", ignore=NOT_COPIED, symlinks=True)
    debian.put(folder / "checkout", CHECKOUT)
    debian.sh(f"chown -R root:root {CHECKOUT}; chmod 700 /root")


def installed(debian: Debian) -> str:
    """What install.sh says."""
    return debian.sh(f"umask 077; {CHECKOUT}/contrib/install.sh", online=True).stdout


def listen_at(debian: Debian, port: int) -> None:
    """pip needs this machine's network, so the daemon that install.sh restarts has it, too: at a port of its own."""
    file = debian.path("/etc/ratelimitd.toml")
    text = file.read_text()
    line = next(line for line in text.splitlines() if line.lstrip("#").startswith("listen = "))
    file.write_text(text.replace(line, f'listen = ["127.0.0.1:{port}"]', 1))


def asked(debian: Debian, port: int) -> str:
    """What the daemon says of three more recipients of Alice's."""
    return debian.run("bash", "-c", ASK, str(port), online=True).stdout


def service(debian: Debian, verb: str) -> str:
    return debian.run("service", "ratelimitd", verb, online=True).stdout


def user_of_the_daemon(debian: Debian) -> str:
    return debian.sh("stat -c %U /proc/$(cat /run/ratelimitd.pid)").stdout


def test_it_installs_updates_restarts_what_runs_survives_an_upgrade_of_the_system_and_goes(
    debian12: Debian, debian13: Debian, folder: Path
) -> None:
    checked_out(debian12, folder)
    checked_out(debian13, folder)
    said = installed(debian12)
    for words in ("made the user", f"putting the program into {LIB}", "made /etc/ratelimitd.toml", "bash completion"):
        assert words in said
    assert "restarted" not in said
    assert 'user = "ratelimitd"\n' in debian12.path("/etc/ratelimitd.toml").read_text()
    completion = "/usr/local/share/bash-completion/completions/ratelimitctl"
    assert "_ratelimitctl" in debian12.run("bash", "-c", f". {completion}; complete -p ratelimitctl").stdout
    listen_at(debian12, port := free_port())
    debian12.run("setpriv", "--reuid=ratelimitd", "--regid=ratelimitd", "--clear-groups", "ratelimitd", "--check")
    service(debian12, "start")
    assert user_of_the_daemon(debian12) == "ratelimitd\n"
    assert asked(debian12, port) == "action=DUNNO\n"
    before = debian12.path("/run/ratelimitd.pid").read_text()
    said = installed(debian12)
    for words in (f"updating the program in {LIB}", "kept /etc/ratelimitd.toml", "restarted the daemon"):
        assert words in said
    assert "sets no user" not in said
    assert debian12.path("/run/ratelimitd.pid").read_text() != before
    assert asked(debian12, port) == "action=DUNNO\n"
    assert "alice@example.com\t:\tdefault\t:\t1000\t:\t6\t:\t" in service(debian12, "status")
    service(debian12, "stop")
    _runs_from_roots_home(debian12, port)

    (plugin,) = debian12.path(f"{LIB}/lib/python3.11/site-packages").glob("ratelimitd-*.dist-info")
    shutil.copytree(plugin, plugin.with_name("acme_keys-1.2.dist-info"))
    _upgrade(debian12, debian13)
    said = installed(debian13)
    assert f"making {LIB} again: its Python is gone, or is another version" in said
    assert f"key plugins to be installed again with {LIB}/bin/pip: acme_keys-1.2\n" in said
    service(debian13, "start")
    assert user_of_the_daemon(debian13) == "ratelimitd\n"
    assert asked(debian13, port) == "action=DUNNO\n"
    for debian, used in ((debian13, "12"), (debian12, "9")):
        _uninstall(debian, used)


def _runs_from_roots_home(debian: Debian, port: int) -> None:
    """The checkout and all that it needs lie where the daemon's user may not look: nothing is read there later."""
    debian.sh(f"cp -a {LIB} /root/venv; rm -r /root/venv/lib/python3.11/site-packages/ratelimitd")
    start = (
        f"cd {CHECKOUT}; PYTHONPATH=. /root/venv/bin/python -c 'from ratelimitd.daemon.main import main; main()'"
        " </dev/null >/root/said 2>&1 & echo $! >/run/ratelimitd.pid;"
        "until grep -q 'is ready' /root/said; do kill -0 $! || exit; sleep 0.1; done"
    )
    debian.sh(start, online=True)
    assert user_of_the_daemon(debian) == "ratelimitd\n"
    assert asked(debian, port) == "action=DUNNO\n"
    assert debian.run("ratelimitctl", "reload").stdout == "The configuration is applied.\n"
    service(debian, "stop")
    assert "ratelimitd has stopped: requests=1\n" in debian.path("/root/said").read_text()


def _upgrade(old: Debian, new: Debian) -> None:
    """What an upgrade of the system keeps of ours."""
    new.sh("useradd --system --user-group ratelimitd")
    for path in (LIB, *KEPT[:2]):
        new.put(old.path(path), path)
    new.sh("chown -R ratelimitd: /var/lib/ratelimitd; chgrp ratelimitd /etc/ratelimitd.toml")


def _uninstall(debian: Debian, used: str) -> None:
    """It stops the daemon, and takes away all but the counts, the configuration and the logs; twice is no mistake."""
    for _ in range(2):
        said = debian.run(f"{CHECKOUT}/contrib/install.sh", "uninstall").stdout
        assert "removed; kept /etc/ratelimitd.toml, /var/lib/ratelimitd" in said
        assert "ratelimitd" not in debian.sh("cat /proc/[0-9]*/comm").stdout
        found = debian.sh(
            "find / -xdev -name '*ratelimit*' -not -path '/proc/*' -not -path '/root/*' -not -path '/tmp/*'"
        )
        inside = [path for path in found.stdout.splitlines() if not path.startswith("/var/lib/ratelimitd/")]
        assert sorted(inside) == KEPT
    assert debian.run("python3", "-c", USED).stdout == f"({used},)\n"
