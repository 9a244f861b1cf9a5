"""contrib/debian: the packages are sound, and Debian 12 and 13 install, upgrade, remove and purge them."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import debian, open_folder, require
from tests.contrib import packages
from tests.contrib.packages import ROOT, Release
from tests.instances import cache
from tests.instances.chroot import Debian
from tests.instances.components import program

pytestmark = pytest.mark.real
README = (packages.HERE / "package" / "ratelimitd.README.Debian").read_text(encoding="utf-8")
OF_THE_CHECKOUT = ("CHANGELOG.md", "LICENSE", "plugins", "ratelimitd", "tests")
"""What pages link to that the package has elsewhere or not at all."""
PLUGINS = "/usr/local/lib/ratelimitd-plugins"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the packages; one worker builds them, others wait."""
    require("debhelper")
    base = tmp_path_factory.getbasetemp()
    return cache.once(base.parent if base.name.startswith("popen-") else base, "debian-packages", packages.build)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def release(request: pytest.FixtureRequest) -> Release:
    require("debhelper")
    (found,) = (each for each in packages.releases() if each.name == request.param)
    return found


@contextlib.contextmanager
def system_of(release: Release, built: Path) -> Iterator[Debian]:
    """The release, in which services may start, with new.deb and old.deb in /root."""
    with debian(release.name, [*release.depends, *packages.BESIDES]) as system, open_folder() as folder:
        system.put(release.package(built), "/root/new.deb")
        system.put(packages.older(release.package(built), folder), "/root/old.deb")
        policy = system.path("/usr/sbin/policy-rc.d")  # without one, nothing is started where no init runs
        policy.write_text("#!/bin/sh\nexit 0\n")
        policy.chmod(0o755)
        yield system


@pytest.fixture
def system(release: Release, built: Path) -> Iterator[Debian]:
    """One of the test's own, without the package."""
    with system_of(release, built) as system:
        yield system


@pytest.fixture(scope="module")
def installed(release: Release, built: Path) -> Iterator[Debian]:
    """One with the package in it, which tests only add files to."""
    with system_of(release, built) as system:
        system.run("dpkg", "-i", "/root/new.deb")
        yield system


def ask(system: Debian, recipients: int) -> str:
    """The reply to a message of alice's with so many recipients."""
    request = f"request=smtpd_access_policy\\nprotocol_state=DATA\\ninstance={time.monotonic_ns()}\\n"
    request += f"sasl_username=alice@example.com\\nrecipient_count={recipients}\\n\\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/10032; printf '{request}' >&3; head -n 1 <&3"
    return system.run("bash", "-c", script).stdout.strip()


def daemon(system: Debian) -> str:
    """The daemon's process id, from the file that the init script keeps; "" where there is none."""
    return system.sh("cat /run/ratelimitd.pid 2>/dev/null || true").stdout.strip()


def facts(system: Debian, path: str) -> str:
    return system.run("stat", "-c", "%U:%G %a", path).stdout.strip()


def test_lintian_has_nothing_to_say(built: Path, release: Release) -> None:
    require("lintian")
    done = subprocess.run(
        [program("lintian"), "--allow-root", "--tag-display-limit", "0", release.package(built)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_installed_upgraded_removed_and_purged(system: Debian) -> None:
    system.sh("apt-get -q -y install /root/old.deb")
    assert system.run("ratelimitctl", "--json", "status").returncode == 0
    assert ask(system, 3) == "action=DUNNO"
    first = daemon(system)
    assert facts(system, f"/proc/{first}") == "ratelimitd:ratelimitd 555"
    assert facts(system, "/etc/ratelimitd.toml") == "root:ratelimitd 640"
    assert facts(system, "/var/lib/ratelimitd") == "ratelimitd:ratelimitd 750"
    assert facts(system, "/var/log/ratelimitd") == "ratelimitd:adm 750"
    assert system.run("dpkg", "--verify", "ratelimitd").stdout == ""

    system.sh("sed -i 's/^quota = 1000/quota = 5/' /etc/ratelimitd.toml")
    system.run("dpkg", "-i", "/root/new.deb")
    assert daemon(system) not in ("", first)
    assert re.search("450 4.7.1 daily message quota exceeded, 6/5", ask(system, 3))
    assert facts(system, "/etc/ratelimitd.toml") == "root:ratelimitd 640"

    system.sh("apt-get -q -y remove ratelimitd")
    assert daemon(system) == ""
    assert "ratelimitd" not in system.sh("cat /proc/[0-9]*/comm").stdout
    assert not system.path("/usr/lib/ratelimitd").exists()
    assert "quota = 5" in system.path("/etc/ratelimitd.toml").read_text()
    assert system.path("/var/lib/ratelimitd/ratelimit.sqlite3").exists()

    system.run("dpkg", "-i", "/root/new.deb")  # where it was removed, it goes on
    assert "9/5" in ask(system, 3)

    system.path(PLUGINS).mkdir()
    system.sh("apt-get -q -y purge ratelimitd")
    left = system.sh("find / -xdev -path /proc -prune -o -name '*ratelimitd*' -print").stdout.split()
    assert left == [PLUGINS]
    assert system.run("getent", "passwd", "ratelimitd", check=False).returncode == 2


def test_everything_the_program_can_do_has_what_it_needs(installed: Debian, release: Release) -> None:
    system = installed
    pyproject = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(pyproject["project"]["optional-dependencies"]) - {"test", "fuzz", "bench"}
    code = (
        "import json, sys; sys.path.insert(0, '/usr/lib/ratelimitd')\n"
        "from importlib.metadata import distributions\n"
        "inside = lambda d: str(d.locate_file('')) == '/usr/lib/ratelimitd'\n"
        "print(json.dumps([[d.name, d.version, inside(d) and d.requires or []] for d in distributions()]))"
    )
    there: dict[str, Any] = {}
    for name, version, requires in json.loads(system.run("python3", "-I", "-c", code).stdout):
        there.setdefault(canonicalize_name(name), (version, [Requirement(text) for text in requires]))
    unmet = set(_unmet(there, "ratelimitd", extras, release.python))
    assert unmet == {"tzdata>=2024.1"}  # Debian's package of that name has no Python in it, and is found as well
    backends = {"sqlite": "", "mysql": 'password = "x"\n', "postgresql": 'password = "x"\n'}
    for backend, more in backends.items():
        text = f'[store]\nbackend = "{backend}"\n{more}[metrics]\nlisten = "127.0.0.1:9132"\n'
        text += '[[notify]]\nurl = "https://hooks.example.com/x"\n[[limit]]\nquota = 7\n'
        system.path("/root/all.toml").write_text(text)
        system.path("/root/all.toml").chmod(0o600)
        assert "warning" not in system.run("ratelimitd", "--check", "-c", "/root/all.toml").stdout
    reference = (ROOT / "conf" / "ratelimitd.toml").read_text(encoding="utf-8")
    assert system.run("ratelimitd", "--example").stdout == reference


def _unmet(there: dict[str, Any], name: str, extras: set[str], python: str) -> Iterator[str]:
    """What a distribution and what is inside require and do not find; of its own packages Debian knows it."""
    seen = set()
    to_do = [(name, extra) for extra in ("", *extras)]
    while to_do:
        name, extra = to_do.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in there[name][1]:
            if not _applies(requirement.marker, extra, python):
                continue
            found = there.get(canonicalize_name(requirement.name))
            if found is None or not requirement.specifier.contains(found[0], prereleases=True):
                yield f"{requirement.name}{requirement.specifier}"
            else:
                to_do += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]


def _applies(marker: Marker | None, extra: str, python: str) -> bool:
    environment = {"extra": extra, "python_version": python, "python_full_version": f"{python}.0"}
    return marker is None or marker.evaluate(environment)


def test_a_third_party_s_key_plugin_is_installed_as_readme_debian_says(installed: Debian) -> None:
    system = installed
    unknown = '[[limit]]\nquota = 7\nkey = "subnet"\n'
    system.path("/root/subnet.toml").write_text(unknown)
    said = system.run("ratelimitd", "--check", "-c", "/root/subnet.toml", check=False)
    assert said.returncode == 2
    advised = re.search(r"(pip install --no-deps .*)\n", said.stdout)
    (command,) = re.findall(r"^    (pip install .*)$", README, re.M)
    plugin = "./plugins/ratelimitd-key-subnet"
    assert plugin in README
    assert advised
    assert advised[1].replace(" --upgrade", "") == command.replace("PLUGIN", plugin)
    system.put(ROOT / "plugins" / "ratelimitd-key-subnet", "/root/plugins/ratelimitd-key-subnet")
    for line in (command.replace("PLUGIN", plugin), advised[1]):
        system.sh(f"cd /root && {line}", online=True)
        assert system.run("ratelimitd", "--check", "-c", "/root/subnet.toml").returncode == 0
    assert "ratelimitd-key-subnet" in system.run("ratelimitctl", "plugins").stdout
    assert system.run("dpkg", "--verify", "ratelimitd").stdout == ""


def test_what_is_in_the_way_of_an_installation_is_said(system: Debian) -> None:
    program_, unit = (
        system.path(f"/{at}") for at in ("opt/rl/bin/ratelimitd", "etc/systemd/system/ratelimitd.service")
    )
    for made in (program_, unit):  # by install.sh
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("[Service]\nExecStart=/opt/rl/bin/ratelimitd -c /etc/ratelimitd.toml\n")
    said = system.run("dpkg", "-i", "/root/new.deb", check=False)
    assert said.returncode != 0
    assert (
        "has installed /opt/rl/bin/ratelimitd. Run `contrib/install.sh uninstall' in its checkout first, with the same "
        "PREFIX: configuration, counts and logs stay" in said.stdout
    )
    assert not system.path("/usr/lib/ratelimitd").exists()

    program_.unlink()
    occupy = "import os, socket; s = socket.create_server(('127.0.0.1', 10032)); os.fork() and os._exit(0)\n"
    occupy += "os.setsid(); os.close(1); os.close(2); s.accept()"
    system.run("python3", "-c", occupy)  # as the Perl daemon does
    said = system.run("dpkg", "-i", "/root/new.deb")
    assert "127.0.0.1:10032" in said.stdout
    assert daemon(system) == ""
    assert "Status: install ok installed" in system.run("dpkg", "-s", "ratelimitd").stdout
    system.put(ROOT / "contrib" / "install.sh", "/root/contrib/install.sh")
    said = system.run("/root/contrib/install.sh", check=False)
    assert said.returncode == 1
    assert "the Debian package is installed: apt-get remove ratelimitd first" in said.stdout
    said = system.run("/root/contrib/install.sh", "uninstall", check=False)
    assert said.returncode == 1
    assert "the Debian package is installed, whose files have the same names: apt-get remove ratelimitd" in said.stdout
    assert system.run("dpkg", "--verify", "ratelimitd").stdout == ""

    system.run("dpkg", "--remove", "ratelimitd")
    program_.touch()
    system.run("dpkg", "--purge", "ratelimitd")  # what install.sh has installed meanwhile keeps its counts
    assert facts(system, "/var/lib/ratelimitd") == "ratelimitd:ratelimitd 750"


@pytest.fixture(scope="module")
def unpacked(release: Release, built: Path) -> Iterator[Path]:
    """The package's files."""
    with open_folder() as folder:
        subprocess.run([program("dpkg-deb"), "-x", release.package(built), folder], check=True)
        yield folder


def test_systemd_starts_the_program_of_the_package(unpacked: Path) -> None:
    for unit in ("ratelimitd.service", "ratelimitd.socket"):
        text = (unpacked / "usr/lib/systemd/system" / unit).read_text(encoding="utf-8")
        assert "/usr/local" not in text
    assert "\nExecStart=/usr/bin/ratelimitd -c /etc/ratelimitd.toml\n" in (
        unpacked / "usr/lib/systemd/system/ratelimitd.service"
    ).read_text(encoding="utf-8")


def test_the_pages_in_the_package_lead_to_each_other(unpacked: Path) -> None:
    share = unpacked / "usr/share"
    pages = {page.name for page in share.glob("man/man?/*")}
    assert pages == {"ratelimitd.8.gz", "ratelimitctl.8.gz", "ratelimitd.toml.5.gz"}
    assert (share / "bash-completion/completions/ratelimitctl").exists()
    assert (unpacked / "etc/logrotate.d/ratelimitd").exists()
    for page in share.glob("doc/ratelimitd/**/*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            named = (page.parent / link).resolve()
            inside = named.relative_to(share / "doc/ratelimitd")
            if inside.parts[0] not in OF_THE_CHECKOUT:
                assert named.exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("name", ["", "sid"])
def test_another_release_is_refused(name: str, tmp_path: Path) -> None:
    require("debhelper")
    done = subprocess.run([packages.HERE / "build", "-o", tmp_path, name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f'build: this is for bookworm and trixie, not for "{name}"\n')
    assert not list(tmp_path.iterdir())
