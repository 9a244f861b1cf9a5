"""A private Dovecot that only checks passwords, for Postfix: no IMAP, no mail, all its files in one folder.

Versions 2.3 and 2.4 are configured in two languages; which one it is, `dovecot --version` says.
"""

import functools
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .components import find, program
from .processes import Process
from .waiting import wait_until

_OPENING = {(2, 3): "", (2, 4): "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"}
_PLAINTEXT = {(2, 3): "disable_plaintext_auth = no", (2, 4): "auth_allow_cleartext = yes"}
_FILE = {(2, 3): "args", (2, 4): "passwd_file_path"}
_CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols =
ssl = no
{plaintext}
auth_mechanisms = plain login
# Who mistypes a password waits for none of the others.
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {socket} {{
    mode = 0660
    user = postfix
    group = postfix
  }}
}}
"""


@functools.cache
def version() -> tuple[int, int]:
    """The first two numbers of the version that is installed."""
    found = subprocess.run([program("dovecot"), "--version"], capture_output=True, text=True, check=True)
    major, minor = re.findall(r"\d+", found.stdout)[:2]
    return int(major), int(minor)


class Dovecot:
    """A Dovecot under `folder`, which users dovecot and postfix must be able to reach.

    Postfix finds it with `main_cf`. Accounts are lines of the file `users`, those of master users of `masters`.
    """

    def __init__(self, folder: Path) -> None:
        find("dovecot")
        self.folder = folder
        self.socket = folder / "auth"
        self.users = folder / "users"
        self.masters = folder / "masters"
        self.main_cf = {"smtpd_sasl_type": "dovecot", "smtpd_sasl_path": str(self.socket)}
        self._process: Process | None = None
        for file in (self.users, self.masters):
            file.touch()

    def add_user(self, login: str, password: str, fields: str = "", *, master: bool = False) -> None:
        """An account, or a master user; `fields` are extra fields of Dovecot's passwd-file."""
        with (self.masters if master else self.users).open("a", encoding="utf-8") as file:
            file.write(f"{login}:{{PLAIN}}{password}::::::{fields}\n")

    def passdb(self, lines: Iterable[str] = (), *, master: bool = False) -> str:
        """A password database: the file of users or of master users, with these settings besides."""
        name = "masters" if master else "users"
        given = "".join(f"  {line}\n" for line in lines)
        setting = _FILE[version()]
        if not re.search(rf"^  {setting} *=", given, re.MULTILINE):
            given = f"  {setting} = {self.folder / name}\n" + given
        head = "passdb {" if version() == (2, 3) else f"passdb {name} {{"
        return f"{head}\n  driver = passwd-file\n{given}}}\n"

    def sql(self, query: str, server: Path, database: str, user: str, password: str) -> str:
        """A password database in the MySQL or MariaDB at the socket `server`, asked with `query`."""
        account = {"host": server, "user": user, "password": password, "dbname": database}
        if version() == (2, 3):
            file = self.folder / "sql"
            connect = " ".join(f"{name}={value}" for name, value in account.items())
            file.write_text(f"driver = mysql\nconnect = {connect}\npassword_query = {query}\n", encoding="utf-8")
            return f"passdb {{\n  driver = sql\n  args = {file}\n}}\n"
        lines = "".join(f"  {name} = {value}\n" for name, value in account.items())
        return f"sql_driver = mysql\nmysql mail {{\n{lines}}}\npassdb sql {{\n  query = {query}\n}}\n"

    def start(self, *settings: str) -> None:
        """Start with these settings; where none of them is a password database, it is the users' file."""
        if self._process is not None:
            raise RuntimeError("Dovecot runs already")
        text = _OPENING[version()] + _CONFIGURATION.format(
            folder=self.folder, socket=self.socket, plaintext=_PLAINTEXT[version()]
        )
        text += "\n".join(settings) + "\n"
        if not re.search(r"^\s*passdb\b", text, re.MULTILINE):
            text += self.passdb()
        file = self.folder / "dovecot.conf"
        file.write_text(text, encoding="utf-8")
        self.socket.unlink(missing_ok=True)
        self._process = Process([program("dovecot"), "-F", "-c", file], self.folder / "output")
        try:
            wait_until(self._listens, "Dovecot's start", timeout=20)
        except BaseException as error:
            error.add_note(self.log())
            self.stop()
            raise

    def stop(self) -> None:
        """End it and all its processes at once: it has nothing to save, and would take a second."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def log(self) -> str:
        """Its log so far, and what it printed."""
        texts = (self.folder / name for name in ("log", "output"))
        return "".join(text.read_text(encoding="utf-8", errors="replace") for text in texts if text.exists())

    def _listens(self) -> bool:
        assert self._process is not None
        self._process.check()
        return self.socket.exists()
