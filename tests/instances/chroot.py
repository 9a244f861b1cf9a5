"""A private Debian: files, processes and a loopback of its own, gone with the test that has it.

What is common to all tests is made by debootstrap once on a machine; each test writes into a layer above it. It is no
boundary against root inside, and systemd does not run in it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cache, holder
from .components import ComponentMissing, find, program

BOOKWORM = "bookworm"
TRIXIE = "trixie"

# What README has a user install before anything else, and what https needs.
_PACKAGES = ("python3", "python3-venv", "ca-certificates")

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
# How this machine reaches the package indexes, so it is how the system inside does.
_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
_MAX_NAME = 100
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def tree(kept: Path, suite: str, packages: Sequence[str] = ()) -> Path:
    """The folder of a Debian with Python and these packages; nothing may be written there.

    The first call on a machine makes it, in a minute or more, and who calls meanwhile waits. Raises ComponentMissing
    where that fails.
    """
    if not packages:
        return cache.once(kept, f"debian-{suite}", lambda at: debootstrap(at, suite, _PACKAGES))

    def build(at: Path) -> None:
        copy(tree(kept, suite), at)
        work = at.with_suffix(".work")
        work.mkdir(exist_ok=True)
        with Debian(at, work, layered=False) as debian:
            try:
                debian.install(*packages)
            except subprocess.CalledProcessError as error:
                raise ComponentMissing(f"apt-get failed: {error.stdout[-2000:]}") from error
        shutil.rmtree(work)

    name = "-".join(["debian", suite, *sorted(packages)])
    if len(name) > _MAX_NAME:
        name = f"debian-{suite}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return cache.once(kept, name, build)


def debootstrap(at: Path, suite: str, packages: Sequence[str]) -> None:
    """Make a minimal Debian with these packages in an empty folder. Raises ComponentMissing."""
    include = f"--include={','.join(packages)}"
    # Its mounts are its own: were it killed, the next attempt would find /proc in the folder that it empties.
    command = [program("unshare"), "--mount", program("debootstrap"), "--variant=minbase", include, suite, str(at)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise ComponentMissing(f"debootstrap failed: {done.stdout[-2000:]}")
    for archive in (at / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a tree into a folder, with owners, modes and devices."""
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


class Debian:
    """A running system: `run` a command in it, `path` to look at its files.

    Its 127.0.0.1 is its own, so every port is free; only with `online` does a command have this machine's network.
    What is started in it runs until `stop`, or until the test run is gone. Nothing is changed in `lower`, unless it is
    not `layered`; the layer lies in `folder`.
    """

    def __init__(self, lower: Path, folder: Path, layered: bool = True) -> None:
        find("chroot")
        self._pid = 0
        command = [program("unshare"), "--mount", "--pid", "--net", "--fork", "--kill-child"]
        command += [sys.executable, "-I", holder.__file__, str(lower), str(folder), "layer" if layered else "bare"]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if said != b"ready\n":
            rest = said + self._holder.stdout.read()
            raise ComponentMissing(f"the right to mount, and to make namespaces: {rest.decode(errors='replace')}")
        of = self._holder.pid
        self._pid = int(Path(f"/proc/{of}/task/{of}/children").read_text())
        self.path("/etc/hosts").write_text("127.0.0.1 localhost\n")
        for file in (Path("/etc/resolv.conf"), Path(os.environ.get("SSL_CERT_FILE", _AUTHORITIES))):
            if file.exists():
                inside = _AUTHORITIES if file.suffix == ".crt" else str(file)
                shutil.copyfile(file, self.path(inside))

    @property
    def pid(self) -> int:
        """A process of this machine that has the system's namespaces."""
        return self._pid

    def path(self, inside: str | Path) -> Path:
        """The path, from outside, of a file inside. A symbolic link to an absolute path leads outside, as always."""
        return Path(f"/proc/{self._pid}/root") / str(inside).lstrip("/")

    def run(
        self,
        *command: str,
        online: bool = False,
        check: bool = True,
        text: str = "",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 600,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as root with `text` as its input; in the result's stdout is all it says.

        Raises subprocess.CalledProcessError with that as a note, unless `check` is false.
        """
        enter = [program("nsenter"), f"--target={self._pid}", "--mount", "--pid", "--root", "--wd"]
        environment = dict(_ENVIRONMENT)
        if online:
            environment |= {name: os.environ[name] for name in _NETWORK if name in os.environ}
            environment |= {"PIP_CERT": _AUTHORITIES, "PIP_ROOT_USER_ACTION": "ignore"}
        else:
            enter.append("--net")
        done = subprocess.run(
            [*enter, "--", *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**environment, **(env or {})},
            timeout=timeout_s,
        )
        if check:
            try:
                done.check_returncode()
            except subprocess.CalledProcessError as error:
                error.add_note(done.stdout[-8000:])
                raise
        return done

    def sh(self, script: str, online: bool = False, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run the lines of a shell script, up to the first that fails."""
        return self.run("sh", "-e", "-c", script, online=online, check=check)

    def install(self, *packages: str) -> None:
        """apt-get install, without what is only recommended, and starting no service."""
        policy = self.path("/usr/sbin/policy-rc.d")
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        self.run("apt-get", "-q", "update", online=True)
        self.run("apt-get", "-q", "-y", "install", "--no-install-recommends", *packages, online=True)
        policy.unlink()

    def put(self, source: Path, inside: str | Path) -> None:
        """Copy a file or a folder of this machine into it."""
        copy_to = self.path(inside)
        copy_to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            copy(source, copy_to)
        else:
            shutil.copy2(source, copy_to)

    def stop(self) -> None:
        """Kill all that runs in it, and let go of its files."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(30)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder.stdout.close()

    def __enter__(self) -> "Debian":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
