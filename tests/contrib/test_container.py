"""contrib/container: what its recipes say is done in private Debians, and what they start serves as README has it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ratelimitd.config.read import read
from tests.conftest import missing, open_folder, require
from tests.contrib.container import IGNORED, Container, Image, bind, stages
from tests.instances import cache, chroot
from tests.instances.components import ComponentMissing, program
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]
HERE = ROOT / "contrib" / "container"
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


class Made(NamedTuple):
    """An image and the folder that its system's layer lies in."""

    image: Image
    folder: Path


def make(stack: ExitStack) -> Made:
    """The base of an image."""
    require("chroot")
    folder = stack.enter_context(open_folder())
    try:
        lower = chroot.tree(cache.folder(), chroot.TRIXIE)
    except ComponentMissing as error:
        missing(str(error))
    return Made(Image(stack.enter_context(chroot.Debian(lower, folder))), folder)


@pytest.fixture
def built() -> Iterator[Made]:
    """The image of contrib/container/Containerfile."""
    with ExitStack() as stack:
        first, last = stages(HERE / "Containerfile")
        build = make(stack).image
        build.build(first, ROOT, {})
        made = make(stack)
        made.image.build(last, _of_a_careful_root(stack.enter_context(open_folder())), {first.name: build})
        yield made


def _of_a_careful_root(context: Path) -> Path:
    """What the last stage takes from a checkout that was made under the umask 077."""
    etc = context / "contrib" / "container" / "etc"
    shutil.copytree(HERE / "etc", etc)
    for path in (etc, *etc.iterdir()):
        path.chmod(path.stat().st_mode & 0o700)
    return context


@pytest.fixture
def mail() -> Iterator[Made]:
    """The image of contrib/container/Containerfile.postfix."""
    with ExitStack() as stack:
        (stage,) = stages(HERE / "Containerfile.postfix")
        made = make(stack)
        made.image.build(stage, HERE, {})
        yield made


def log_in_and_send(system: chroot.Debian, recipients: int) -> list[int]:
    """Send a mail as alice on port 587, from where nobody is known; what was said to each recipient."""
    code = (
        "import smtplib, sys\n"
        "with smtplib.SMTP('127.0.0.1', 587, timeout=60) as client:\n"
        "    client.ehlo(); client.login('alice@example.com', 'secret')\n"
        "    client.mail('alice@example.com')\n"
        f"    print(*[client.rcpt(f'r{{i}}@example.org')[0] for i in range({recipients})])\n"
    )
    enter = [program("nsenter"), f"--target={system.pid}", "--net", "--", sys.executable, "-c", code]
    done = subprocess.run(enter, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def comment(containing: str) -> list[str]:
    """The command in compose.yaml's introduction, after the name of the service."""
    text = (HERE / "compose.yaml").read_text(encoding="utf-8")
    (found,) = (line for line in text.splitlines() if line.startswith("#   docker compose") and containing in line)
    words = found.split(" exec ")[1].split()
    assert words[0] in SERVICES
    return words[1:]


@pytest.mark.real
def test_a_mail_beyond_the_quota_is_refused_and_a_stop_loses_no_count(built: Made, mail: Made, folder: Path) -> None:
    image, system = built.image, built.image.system
    assert image.volumes == ["/var/lib/ratelimitd", "/run/ratelimitd"]
    image.run("ratelimitd", "--check")  # without compose.yaml, too
    (policy := folder / "policy").mkdir()
    shutil.copytree(HERE / "etc", folder / "etc")
    bind(system, built.folder, policy, "/run/ratelimitd")
    bind(mail.image.system, mail.folder, policy, "/run/ratelimitd")
    bind(system, built.folder, folder / "etc", "/etc/ratelimitd")
    uid, gid = (int(system.run("id", flag, image.user).stdout) for flag in ("-u", "-g"))
    shutil.chown(policy, uid, gid)  # an engine takes over the owner that the image's folder has
    assert not image.is_healthy()

    service = Container(image, image.volumes, SERVICES["ratelimitd"]["read_only"])
    postfix = Container(mail.image, [], False)
    try:
        wait_until(lambda: service.runs() and image.is_healthy(), "the health of ratelimitd", timeout=60)
        assert "ready" in service.log
        add = comment("saslpasswd2")
        mail.image.run(add[0], "-p", *add[1:], text="secret")
        wait_until(lambda: postfix.runs() and _listens(mail), "Postfix's start", timeout=60)
        assert log_in_and_send(mail.image.system, 3) == [250, 250, 250]
        assert "status=INSERT" in service.log

        settings = folder / "etc" / "ratelimitd.toml"
        changed = settings.with_suffix(".new")
        changed.write_text(settings.read_text().replace("quota = 1000", "quota = 4"))
        changed.rename(settings)  # as an editor does
        image.run(*comment("reload"))
        assert log_in_and_send(mail.image.system, 2) == [250, 450]
        assert "status=OVER_QUOTA" in service.log
        assert re.search(r"\b5\b", image.run(*comment("show")).stdout)

        assert service.stop() == 0
        assert not image.is_healthy()
        assert log_in_and_send(mail.image.system, 1) == [250]  # while it is down, mail passes
        service = Container(image, image.volumes, True)
        wait_until(lambda: service.runs() and image.is_healthy(), "the health of ratelimitd", timeout=60)
        assert log_in_and_send(mail.image.system, 1) == [450]
    finally:
        service.kill()
        postfix.kill()


def _listens(mail: Made) -> bool:
    enter = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/587 && read -r -u 3"]
    return mail.image.system.run(*enter, check=False).returncode == 0


def test_the_compose_file_fits_the_recipes() -> None:
    volumes = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        context = (HERE / service["build"]["context"]).resolve()
        last = stages(context / service["build"]["dockerfile"])[-1]
        steps = dict(last.steps)
        assert steps["ENTRYPOINT"].startswith("[")  # else a shell would be process 1, which passes no signal on
        for mount in service["volumes"]:
            source, target = mount.split(":")[:2]
            assert (HERE / source).is_dir() if source.startswith(".") else source in volumes
            assert target.startswith(("/var/", "/run/", "/etc/"))
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "HEALTHCHECK" in dict(stages(HERE / "Containerfile")[-1].steps), other
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"]}
    assert volumes == {name for name in used if not name.startswith(".")}


def test_a_stop_is_given_the_time_that_the_daemon_may_take() -> None:
    config = read(HERE / "etc" / "ratelimitd.toml")
    grace_s = int(SERVICES["ratelimitd"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > 2.6 * config.settings.server.shutdown_timeout_s  # contrib/doc/operations.md


def test_the_context_of_the_image_has_no_environment_and_no_history() -> None:
    ignored = IGNORED.read_text(encoding="utf-8").splitlines()
    assert {".git", ".venv", ".state"} <= set(ignored)
    assert not {"ratelimitd", "contrib", "conf", "sql", "pyproject.toml"} & set(ignored)
