"""Whether Postfix's password check ignores the domain of a login: then whoever types another has another quota.

saslauthd does without -r. It is looked for among the processes; one in another container is not seen.
"""

import getopt
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ratelimitd.ctl.answers import Fault
from ratelimitd.ctl.doctor.postconf import Postfix, Smtpd

PROC = Path("/proc")
FOLDERS = ("/etc/postfix/sasl", "/etc/sasl2", "/usr/lib64/sasl2", "/usr/lib/sasl2")
"""Where Cyrus SASL looks for the configuration of an application, besides cyrus_sasl_config_path."""
FIX = "start saslauthd with -r, or name the domains that are real: [keys] domains = [...], and default_domain"

_METHOD = re.compile(r"^\s*pwcheck_method\s*:(.*)", re.MULTILINE)
_OPTIONS = "a:cdhlm:n:O:rs:t:vV"  # saslauthd(8)


def examine(postfix: Postfix, seen: Sequence[tuple[str, int]]) -> Iterator[Fault]:
    """The faults. `seen`: local parts that logins of many domains had, and how many those were."""
    file = next(filter(None, map(_asks_saslauthd, postfix.smtpds)), None)
    if file is None:
        return
    running = list(_saslauthds())
    if all(running) and (running or not seen):
        return
    how = "runs without -r, so it ignores the domain" if running else "ignores the domain if it runs without -r"
    what = f"passwords are checked by saslauthd ({file}), which {how}: each alice@anything has a quota of its own"
    if seen:
        what += f"; {seen[0][0]} has sent under {seen[0][1]} domains"
        what += f" (users like that: {len(seen)})" if len(seen) > 1 else ""
    yield Fault("realm-ignored", what, FIX)


def _asks_saslauthd(smtpd: Smtpd) -> Path | None:
    """The file that makes an smtpd ask saslauthd, if it does."""
    parameters = smtpd.parameters
    if not smtpd.is_on("smtpd_sasl_auth_enable") or parameters.get("smtpd_sasl_type") != "cyrus":
        return None
    folders = [folder for folder in parameters.get("cyrus_sasl_config_path", "").split(":") if folder]
    name = Path(parameters.get("smtpd_sasl_path", "smtpd")).name + ".conf"
    for folder in (*folders, *FOLDERS):
        file = Path(folder) / name
        with suppress(OSError):
            methods = " ".join(_METHOD.findall(file.read_text("utf-8", "replace"))).split()
            return file if "saslauthd" in methods else None  # the first file that there is counts
    return None


def _saslauthds() -> Iterator[bool]:
    """Whether each saslauthd that runs here respects the domain."""
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError, getopt.GetoptError):
            if (folder / "comm").read_text("utf-8", "replace").strip() != "saslauthd":
                continue
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[1:]
            yield any(option == "-r" for option, _ in getopt.getopt(words, _OPTIONS)[0])
