"""A private Postfix: its own configuration, queue, accounts and log in one folder."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .components import find, program
from .ports import free_port
from .processes import Process
from .waiting import wait_until

_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
anvil     unix - - n - 1 anvil
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
postlog   unix-dgram n - n - 1 postlogd
"""

_SASL_CONF = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {database}
mech_list: PLAIN LOGIN
"""

_QUEUES = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace"
_RELAY = "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"
_STARTED = ": daemon started -- "


class Postfix:
    """A Postfix under `folder`, which user postfix must be able to reach. Every message is discarded."""

    def __init__(self, folder: Path) -> None:
        find("postfix")
        self.folder = folder
        self.port = free_port()
        self.queue = folder / "queue"
        self.log_file = folder / "maillog"
        self.sasl_conf = _SASL_CONF.format(database=folder / "sasldb2")  # of Cyrus SASL; a test may have another
        self._etc = folder / "etc"
        self._sasldb = folder / "sasldb2"
        self._process: Process | None = None

    def settings(self, mynetworks: str, xclient: bool) -> dict[str, str]:
        """main.cf, before the test's own settings."""
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.folder / "data"),
            "maillog_file": str(self.log_file),
            "maillog_file_prefixes": str(self.folder),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "mail.example.com",
            "mydestination": "",
            "mynetworks": mynetworks,
            "alias_maps": "",
            "alias_database": "",
            "default_transport": "discard:",
            "local_transport": "discard:",
            "relay_transport": "discard:",
            "smtpd_relay_restrictions": _RELAY,
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "cyrus",
            "smtpd_sasl_path": "smtpd",
            "cyrus_sasl_config_path": str(self._etc / "sasl"),
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8" if xclient else "",
            # No limits, delays or notices of Postfix's own.
            "smtpd_client_connection_count_limit": "0",
            "smtpd_error_sleep_time": "0",
            "smtpd_soft_error_limit": "10000",
            "smtpd_hard_error_limit": "10000",
            "in_flow_delay": "0",
            "notify_classes": "",
        }

    def start(self, main_cf: Mapping[str, str] | None = None, *, mynetworks: str = "", xclient: bool = False) -> None:
        """Write the configuration (`main_cf` wins) and start; once stopped, it may be started anew."""
        if self._process is not None:
            raise RuntimeError("Postfix runs already")
        self._prepare(self.settings(mynetworks, xclient) | dict(main_cf or {}))
        daemons = Path(self._output("postconf", "-d", "-h", "daemon_directory").strip())
        log = self.folder / "master.log"
        times = self.log().count(_STARTED)  # master says so once it listens
        self._process = Process([daemons / "master", "-c", self._etc, "-d"], log)
        try:
            wait_until(lambda: self._started(times), "Postfix's start", timeout=20)
        except BaseException as error:
            error.add_note(self.log())
            self.stop()
            raise

    def stop(self) -> None:
        """Stop, and wait until all its processes are gone."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(timeout=10)

    def add_user(self, login: str, realm: str, password: str) -> None:
        """An account for SMTP AUTH. `login@realm` logs in; so does `login` where
        smtpd_sasl_local_domain, or else myhostname, is the realm."""
        command = [program("saslpasswd2"), "-c", "-p", "-f", str(self._sasldb), "-u", realm, login]
        subprocess.run(command, input=password.encode(), check=True, capture_output=True)
        shutil.chown(self._sasldb, "postfix")

    def log(self) -> str:
        """Its mail log: all of it after `stop`, for it is written by a process of its own."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def cpu_s(self) -> float:
        """User and system time so far, of all its processes."""
        return self._process.cpu_s() if self._process is not None else 0.0

    def _prepare(self, settings: Mapping[str, str]) -> None:
        for folder in (self.folder, self._etc, self._etc / "sasl"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        self._make_queue()
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        shutil.chown(data, "postfix")
        main_cf = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._etc / "main.cf").write_text(main_cf)
        os.utime(self._etc / "main.cf", (0, 0))  # Postfix waits 1.5 s for a file that is just being edited
        (self._etc / "master.cf").write_text(_MASTER_CF.format(port=self.port))
        (self._etc / "sasl" / "smtpd.conf").write_text(self.sasl_conf)
        if not self._sasldb.exists():
            self.add_user("nobody", "invalid", os.urandom(16).hex())  # makes the file

    def _make_queue(self) -> None:
        """What `postfix check` would make, without its second of other checks."""
        self.queue.mkdir(exist_ok=True)
        (self.queue / "pid").mkdir(exist_ok=True)
        for name in _QUEUES.split():
            folder = self.queue / name
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o700)
                shutil.chown(folder, "postfix")
        for name, mode in (("public", 0o710), ("maildrop", 0o730)):
            (self.queue / name).chmod(mode)
            shutil.chown(self.queue / name, "postfix", "postdrop")

    def _started(self, times: int) -> bool:
        assert self._process is not None
        self._process.check()
        return self.log().count(_STARTED) > times

    def _output(self, name: str, *arguments: str | Path) -> str:
        result = subprocess.run(
            [program(name), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        if result.returncode != 0:
            raise RuntimeError(f"{name} {arguments}: {result.stdout}{result.stderr}{self.log()}")
        return result.stdout
