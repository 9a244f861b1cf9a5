"""Postfix's configuration, as `postconf` shows it: main.cf, and master.cf with its overrides, parameters expanded."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ratelimitd.control.commands import WRONG, Refused

TIMEOUT_S = 30
REMEDY = "run it where Postfix is, and give the folder of its main.cf by --postfix-config where it is not the usual one"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])
_WITH_DEFAULTS = (
    *("smtpd_sasl_type", "smtpd_sasl_path", "cyrus_sasl_config_path"),
    *("smtpd_delay_reject", "smtpd_sasl_auth_enable", "smtpd_relay_restrictions", "smtpd_recipient_restrictions"),
    *("smtpd_reject_unlisted_recipient", "smtpd_policy_service_try_limit", "smtpd_policy_service_default_action"),
    *("queue_directory", "mail_owner", "compatibility_level"),
)


_UNBRACED = re.compile(r"\b(check_policy_service)\s+([^\s,{}]+(?:[\s,]+\w+=[^\s,{}]+)+)")


class Malformed(NamedTuple):
    """A -o of master.cf that no smtpd understands: as it is written, and what is meant."""

    text: str
    name: str
    value: str


@dataclass(frozen=True)
class Smtpd:
    """An smtpd service of master.cf, every parameter that applies to it, and those that its -o sets.

    Both are what they would be without what is `malformed`.
    """

    name: str
    chroot: bool
    parameters: Mapping[str, str]
    overrides: Mapping[str, str] = field(default_factory=dict)
    malformed: tuple[Malformed, ...] = ()

    def is_on(self, parameter: str) -> bool:
        """Whether a yes-or-no parameter is yes."""
        return self.parameters.get(parameter, "no") == "yes"


@dataclass(frozen=True)
class Postfix:
    """One instance. `ports` are the TCP services of master.cf as written there, `main` what main.cf says."""

    queue_directory: Path
    owner: str
    smtpds: list[Smtpd]
    ports: list[str] = field(default_factory=list)
    main: Mapping[str, str] = field(default_factory=dict)


def read(folder: Path | None) -> Postfix:
    """The instance whose main.cf is in a folder, or the default one. Raises Refused."""
    main = _parameters(_postconf(folder, "-x", *_WITH_DEFAULTS)) | _parameters(_postconf(folder, "-nx"))
    overrides: dict[str, dict[str, str]] = {}
    for name, value in _parameters(_postconf(folder, "-Px")).items():
        service, _, parameter = name.rpartition("/")
        overrides.setdefault(service, {})[parameter] = value
    smtpds, ports = [], []
    for line in _postconf(folder, "-M").splitlines():
        fields = line.split(None, 8)
        if len(fields) < 8:
            continue
        name, kind, chroot, command = fields[0], fields[1], fields[4], fields[7]
        if kind == "inet":
            ports.append(name)
        if command == "smtpd" and kind in ("inet", "pass"):
            is_chroot = chroot == "y" or (chroot == "-" and main["compatibility_level"].startswith("0"))
            wrong = malformed(fields[8]) if len(fields) > 8 else ()
            own = overrides.get(f"{name}/{kind}", {}) | {each.name: each.value for each in wrong}
            smtpds.append(Smtpd(name, is_chroot, main | own, own, wrong))
    return Postfix(Path(main["queue_directory"]), main["mail_owner"], smtpds, ports, main)


def malformed(text: str) -> tuple[Malformed, ...]:
    """The -o among the arguments of an smtpd that have blanks outside of braces.

    >>> malformed("-o a=b -o {c = d e} -v -o f = g h -o i=k l")
    (Malformed(text='-o f = g h', name='f', value='g h'), Malformed(text='-o i=k l', name='i', value='k l'))
    """
    options: list[list[str]] = []
    for argument in _arguments(text):
        if argument.startswith("-") or not options:
            options.append([argument])
        else:
            options[-1].append(argument)
    found = []
    for flag, *words in options:
        name, _, value = " ".join(words).partition("=")
        if flag.endswith("o") and len(words) > 1 and name.strip():
            meant = _UNBRACED.sub(r"\1 { \2 }", value.strip())
            found.append(Malformed(" ".join([flag, *words]), name.strip(), meant))
    return tuple(found)


def _arguments(text: str) -> Iterator[str]:
    """The arguments of a command of master.cf: words, and what is in braces, which may have others in them."""
    argument, depth = "", 0
    for word in text.split():
        argument = f"{argument} {word}" if argument else word
        depth += word.count("{") - word.count("}")
        if depth <= 0:
            yield argument
            argument, depth = "", 0
    if argument:
        yield argument


def _parameters(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            found[name.strip()] = value.strip()
    return found


def _postconf(folder: Path | None, *arguments: str) -> str:
    program = shutil.which("postconf", path=_PATH)
    if program is None:
        raise Refused("postconf is not installed", WRONG)
    command = [program, *(["-c", str(folder)] if folder else []), *arguments]
    try:
        ran = subprocess.run(  # noqa: S603 postconf, found in the system's folders
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{' '.join(command)}: {error}", WRONG) from error
    if ran.returncode != 0:
        reason = " ".join(ran.stderr.split()).rpartition("fatal: ")[2]
        raise Refused(f"postconf: {reason}", WRONG)
    return ran.stdout
