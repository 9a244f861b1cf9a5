"""Plugins as a stranger has them: in a clean virtual environment, by pip, and as the tutorial says."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing, open_folder
from tests.daemon.client import DUNNO
from tests.daemon.process import Ratelimitd, config
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "plugins" / "README.md"
TIMEOUT_S = 600

pytestmark = pytest.mark.real


class Environment:
    """A virtual environment, as a shell has it that activated it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, timeout=TIMEOUT_S)
        self.bin = folder / "bin"

    def shell(self, command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command line in a folder. Skips the test where pip reaches no package index."""
        path = f"{self.bin}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(self.folder), "PIP_ROOT_USER_ACTION": "ignore"}
        run = subprocess.run(
            ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if "No matching distribution found" in run.stderr:
            missing(f"a package index: {run.stderr}")
        return run

    def daemon(self, folder: Path, text: str) -> Ratelimitd:
        """This environment's daemon, on a configuration."""
        return Ratelimitd(folder, text, prefix=[str(self.bin / "python")])


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    """A clean environment as the first command of README.md makes it, with `subnet` as plugins/README.md says."""
    with open_folder() as folder:
        made = Environment(folder / "venv")
        assert ".venv/bin/pip install -q -e ." in (ROOT / "README.md").read_text(encoding="utf-8")
        for command in ("pip install -q -e .", "pip install ./plugins/ratelimitd-key-subnet"):
            run = made.shell(command)
            assert run.returncode == 0, run.stderr
        yield made


def test_a_plugin_leaves_the_installation_of_ratelimitd_as_it_is(environment: Environment) -> None:
    where = environment.shell("python -c 'import ratelimitd; print(ratelimitd.__file__)'", environment.folder)
    assert where.stdout == f"{ROOT}/ratelimitd/__init__.py\n"


@pytest.fixture
def start(environment: Environment, folder: Path) -> Iterator[Callable[[str], Ratelimitd]]:
    """`start(text)`: the environment's daemon, running."""
    daemons: list[Ratelimitd] = []

    def started(text: str) -> Ratelimitd:
        daemon = environment.daemon(folder, text)
        daemons.append(daemon)
        daemon.start()
        return daemon

    yield started
    for daemon in daemons:
        daemon.kill()


def test_mail_without_a_login_is_limited_by_subnet(
    start: Callable[[str], Ratelimitd], environment: Environment, postfix: Postfix
) -> None:
    daemon = start(config(limit=[{"key": "subnet", "quota": 2, "action": "450 4.7.1 over {quota} of {key}"}]))
    assert "/venv/" in environment.shell("command -v ratelimitd").stdout
    service = f"check_policy_service {{ inet:127.0.0.1:{daemon.port}, timeout=10s, default_action=DUNNO }}"
    postfix.start({"smtpd_recipient_restrictions": service}, mynetworks="192.0.2.0/23", xclient=True)
    codes = []
    for address in ("192.0.2.1", "192.0.2.99", "192.0.2.200", "192.0.3.1"):
        with Smtp(postfix.port) as smtp:
            assert smtp.xclient(addr=address, name="client.example.net").code == 220
            assert smtp.mail("anyone@example.net").code == 250
            reply = smtp.rcpt("someone@example.org")
            codes.append(reply.code)
            if reply.code == 450:
                assert reply.text.endswith("over 2 of 192.0.2.0/24")
    assert codes == [250, 250, 450, 250]
    assert daemon.stop() == 0
    assert daemon.used() == {"192.0.2.0/24": 3, "192.0.3.0/24": 1}


def test_the_other_plugins_are_installed_and_configured_as_their_readmes_say(
    environment: Environment, folder: Path
) -> None:
    run = environment.shell("pip install ./plugins/ratelimitd-key-tenant ./plugins/ratelimitd-key-sender")
    assert run.returncode == 0, run.stderr
    for name in ("subnet", "tenant", "sender"):
        readme = (ROOT / "plugins" / f"ratelimitd-key-{name}" / "README.md").read_text(encoding="utf-8")
        assert f"\n    pip install ./plugins/ratelimitd-key-{name}\n" in readme
        text, *tenants = re.findall(r"^```toml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        for tenant_map in tenants:
            (folder / "tenants.toml").write_text(tenant_map, encoding="utf-8")
        file = folder / f"{name}.toml"
        file.write_text(text.replace("/etc/ratelimitd/", f"{folder}/"), encoding="utf-8")
        check = environment.shell(f"ratelimitd -c {file} --check")
        assert check.returncode == 0, check.stderr
        listed = environment.shell(f"ratelimitctl -c {file} plugins")
        assert listed.returncode == 0, listed.stdout
        assert re.search(rf"^{name} +ratelimitd-key-{name} +0.1.0 +{name}$", listed.stdout, re.MULTILINE)


def chapter() -> str:
    """The tutorial: the chapter of plugins/README.md about writing a plugin."""
    _, _, rest = TUTORIAL.read_text(encoding="utf-8").partition("\n## Write a key plugin\n")
    assert rest
    return rest.partition("\n## ")[0]


def block(language: str, which: str) -> str:
    """The block in a language of the chapter that has this text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", chapter(), re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if which in text]
    return str(found)


def test_the_tutorial_s_plugin_works_as_written(
    start: Callable[[str], Ratelimitd], environment: Environment, folder: Path
) -> None:
    files = re.findall(r"`([^`\n]+)`(?:, for `pytest`)?:\n\n```\w+\n(.*?)^```$", chapter(), re.MULTILINE | re.DOTALL)
    files = [(name, text) for name, text in files if "/" in name]
    assert len(files) == 3
    for name, text in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    install, show = block("sh", "pip install").splitlines()
    run = environment.shell(install, folder)
    assert run.returncode == 0, run.stderr
    assert "customer  ratelimitd-key-customer  0.1.0" in environment.shell(show, folder).stdout

    head, _, _ = config().partition("[[limit]]")
    daemon = start(head + block("toml", "[keys.customer]"))
    with daemon.client() as client:
        state: dict[str, str | int] = {"protocol_state": "DATA", "recipient_count": 300}
        assert client.ask("c4711-anna", **state) == DUNNO
        assert client.ask("c4712-anna", **state) == DUNNO
        assert client.ask("nobody", **state) == DUNNO
        assert client.ask("C4711-bert@example.com", **state).startswith(
            "450 4.7.1 hourly message quota exceeded, 600/500"
        )
    assert daemon.stop() == 0
    assert daemon.used("customer") == {"c4711": 600, "c4712": 300}
    daemon.file.write_text(daemon.file.read_text().replace('"-"', "5"))
    check = environment.shell(f"ratelimitd -c {daemon.file} --check")
    assert check.returncode == 2
    assert check.stderr.endswith("keys.customer.separator: found 5; allowed: a text, not empty\n")

    (test,) = [name for name, _ in files if "test_" in name]
    path = {**os.environ, "PYTHONPATH": str((folder / test).parent)}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder / test]
    tests = subprocess.run(argv, env=path, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert tests.returncode == 0, tests.stdout + tests.stderr


def test_our_own_keys_need_no_entry_points(environment: Environment, folder: Path) -> None:
    (folder / "ratelimitd.toml").write_text("[[limit]]\nquota = 1\n")
    (points,) = environment.folder.glob("lib/python*/site-packages/ratelimitd-*.dist-info/entry_points.txt")
    text = points.read_text()
    points.write_text(text.partition("[ratelimitd.keys]")[0])
    try:
        run = environment.shell(f"ratelimitd -c {folder}/ratelimitd.toml --check")
    finally:
        points.write_text(text)
    assert (run.returncode, run.stderr.count("found")) == (0, 0), run.stderr
