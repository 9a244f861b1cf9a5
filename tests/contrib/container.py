"""Does in a private Debian what a Containerfile says, instruction by instruction, and runs what it starts.

No engine is needed. It knows the instructions that contrib/container uses, and fails at any other.
"""

import fnmatch
import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.instances.chroot import Debian
from tests.instances.components import program

BASE = "docker.io/library/debian:trixie-slim"
IGNORED = Path(__file__).parents[2] / "contrib" / "container" / "Containerfile.dockerignore"
"""Of a context, what stays out of images; it has the name of its recipe."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines set where an image sets nothing."""


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[tuple[str, str]]


def stages(file: Path) -> list[Stage]:
    """The stages of a Containerfile."""
    found: list[Stage] = []
    text = re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name, []))
        else:
            found[-1].steps.append((instruction, rest))
    return found


@dataclass
class Image:
    """What a stage has made of a system, and how it is run."""

    system: Debian
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    health: str = ""

    def build(self, stage: Stage, context: Path, others: dict[str, "Image"]) -> None:
        """Do all steps. The base has only what a Debian cannot do without: the rest goes if no RUN line asks for it."""
        assert stage.base == BASE
        self.system.sh("apt-mark -qq auto $(apt-mark showmanual) >/dev/null")
        for instruction, rest in stage.steps:
            match instruction:
                case "RUN":
                    self.system.sh(rest, online=True)
                    if "apt-get" in rest:
                        self.system.sh("apt-get -qq -y autoremove --purge")
                case "COPY":
                    self._copy(shlex.split(rest), context, others)
                case "ENV":
                    self.environment |= dict([rest.split("=", 1)])
                case "USER":
                    self.user = rest
                case "VOLUME":
                    self.volumes = json.loads(rest)
                case "HEALTHCHECK":
                    self.health = rest.partition(" CMD ")[2]
                case "ENTRYPOINT":
                    self.entrypoint = json.loads(rest)
                case _:
                    raise ValueError(f"{instruction} is not known here")

    def _copy(self, words: list[str], context: Path, others: dict[str, "Image"]) -> None:
        if words[0].startswith("--from="):
            of, source, target = words
            copy(others[of.removeprefix("--from=")].system.path(source), self.system.path(target))
            return
        source, target = words
        if source != ".":
            copy(context / source, self.system.path(target))
            return
        left_out = IGNORED.read_text(encoding="utf-8").split("\n")
        for path in sorted(context.iterdir()):
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in left_out if pattern):
                copy(path, self.system.path(target) / path.name)

    def command(self, *words: str) -> list[str]:
        """A command as the image's user, with the image's environment."""
        setpriv = [] if self.user == "root" else [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return ["setpriv", "--no-new-privs", *setpriv, "env", *given, *words]

    def run(self, *words: str, check: bool = True, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as an engine's `exec` does."""
        return self.system.run(*self.command(*words), check=check, text=text)

    def is_healthy(self) -> bool:
        """What its HEALTHCHECK says."""
        return self.run("sh", "-c", self.health, check=False).returncode == 0


def copy(source: Path, target: Path) -> None:
    """Copy a file, or what is in a folder, with modes and links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    what = f"{source}/." if source.is_dir() else str(source)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--no-preserve=ownership", what, str(target)], check=True)


def bind(system: Debian, folder: Path, volume: Path, inside: str) -> None:
    """Let a folder of this machine be one of the system's, whose layer lies in `folder`."""
    system.path(inside).mkdir(parents=True, exist_ok=True)
    target = f"{folder}/root{inside}"
    enter = [program("nsenter"), f"--target={system.pid}", "--mount", "mount", "--bind", str(volume), target]
    subprocess.run(enter, check=True)


class Container:
    """What an image's entry point has started, as process 1 of a namespace, on files that cannot be written to."""

    def __init__(self, image: Image, writable: list[str], read_only: bool) -> None:
        self._image = image
        self._log = image.system.path("/tmp/log")
        script = "".join(f"mount --bind {folder} {folder}; " for folder in writable)
        script += "mount -o remount,bind,ro /; " if read_only else ""
        script += "exec " + shlex.join(image.command(*image.entrypoint)) + " 2>&1"
        words = [program("nsenter"), f"--target={image.system.pid}", "--mount", "--pid", "--root", "--wd", "--net"]
        words += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": _PATH}
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def runs(self) -> bool:
        """True; AssertionError, with its log, if it has ended."""
        assert self._process.poll() is None, self.log
        return True

    def stop(self) -> int:
        """SIGTERM to process 1, as an engine's `stop`; its exit status."""
        pid = self._process.pid
        for _ in range(2):  # nsenter forks into the namespace, unshare into its own
            (pid,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        os.kill(pid, 15)
        return self._process.wait(60)

    def kill(self) -> None:
        """End it, however it is."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
