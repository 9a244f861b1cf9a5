"""contrib/install.sh into a folder: what it puts there, that it may run again, that uninstall takes it away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "contrib" / "install.sh"


def install(folder: Path, *verb: str) -> str:
    environment = {**os.environ, "DESTDIR": str(folder), "EXTRAS": "", "PYTHON": sys.executable, "PREFIX": "/opt/rl"}
    done = subprocess.run(
        ["/bin/sh", SCRIPT, *verb],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def files(folder: Path) -> set[str]:
    """What is there, but for the virtual environment."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return {name for name in found if not name.startswith("opt/rl/lib/")}


@pytest.mark.long  # two installations by pip: half a minute
@pytest.mark.real
def test_it_installs_updates_and_takes_away_what_it_installed(folder: Path) -> None:
    install(folder)
    assert files(folder) == {
        "etc/init.d/ratelimitd",
        "etc/logrotate.d/ratelimitd",
        "etc/ratelimitd.toml",
        "etc/systemd/system/ratelimitd.service",
        "etc/systemd/system/ratelimitd.socket",
        "opt/rl/bin/ratelimitctl",
        "opt/rl/bin/ratelimitd",
        "opt/rl/share/bash-completion/completions/ratelimitctl",
        "opt/rl/share/man/man5/ratelimitd.toml.5",
        "opt/rl/share/man/man8/ratelimitctl.8",
        "opt/rl/share/man/man8/ratelimitd.8",
        "opt/rl/share/ratelimitd/ratelimitd.toml",
    }
    assert "ExecStart=/opt/rl/bin/ratelimitd " in (folder / "etc/systemd/system/ratelimitd.service").read_text()
    assert "DAEMON=/opt/rl/bin/ratelimitd\n" in (folder / "etc/init.d/ratelimitd").read_text()
    assert (folder / "etc/ratelimitd.toml").stat().st_mode & 0o777 == 0o640
    assert (folder / "var/lib/ratelimitd").stat().st_mode & 0o777 == 0o750
    own = folder / "opt/rl/lib/ratelimitd/bin"
    assert (own / "ratelimitd").read_text().startswith("#!/opt/rl/lib/ratelimitd/bin/python")
    for backend in ("sqlite", "mysql", "postgresql"):  # the program has what each needs
        (folder / f"{backend}.toml").write_text(f'[store]\nbackend = "{backend}"\n[[limit]]\nquota = 7\n')
        checked = subprocess.run(
            [own / "python", own / "ratelimitd", "-c", folder / f"{backend}.toml", "--check"],
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert (checked.returncode, checked.stderr) == (0, "")
        (folder / f"{backend}.toml").unlink()
    text = (folder / "etc/ratelimitd.toml").read_text()
    assert '\nuser = "ratelimitd"\n' in text
    (folder / "whole.toml").write_text(text.replace('user = "ratelimitd"', ""))  # whom nobody has made here
    checked = subprocess.run(
        [own / "python", own / "ratelimitd", "-c", folder / "whole.toml", "--check"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")
    (folder / "whole.toml").unlink()

    (folder / "etc/ratelimitd.toml").write_text("[[limit]]\nquota = 7\n")
    before = files(folder)
    assert "kept /etc/ratelimitd.toml" in install(folder)
    assert files(folder) == before
    assert (folder / "etc/ratelimitd.toml").read_text() == "[[limit]]\nquota = 7\n"

    for _ in range(2):
        install(folder, "uninstall")
        assert files(folder) == {"etc/ratelimitd.toml"}
        assert not (folder / "opt/rl/lib/ratelimitd").exists()
        assert (folder / "var/lib/ratelimitd").exists()


def test_an_unknown_verb_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", SCRIPT, "nonsense"], env={**os.environ, "DESTDIR": str(tmp_path)}, capture_output=True, timeout=60
    )
    assert done.returncode != 0
    assert b"usage" in done.stderr


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_one_that_was_installed_with_another_prefix_is_neither_left_half_nor_doubled(tmp_path: Path, verb: str) -> None:
    unit, program = (
        tmp_path / "etc/systemd/system/ratelimitd.service",
        tmp_path / "opt/rl/lib/ratelimitd/bin/ratelimitd",
    )
    for file in (unit, program):
        file.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/opt/rl/bin/ratelimitd -c /etc/ratelimitd.toml\n")
    program.touch()
    environment = {name: value for name, value in os.environ.items() if name != "PREFIX"} | {"DESTDIR": str(tmp_path)}
    done = subprocess.run(["/bin/sh", SCRIPT, verb], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "it is installed with PREFIX=/opt/rl: run this with that PREFIX" in done.stderr
    assert files(tmp_path) == {"etc/systemd/system/ratelimitd.service"}
    install(tmp_path, "uninstall")
    assert not program.parent.exists()
    assert not unit.exists()


@pytest.mark.parametrize(
    ("name", "value"), [("PREFIX", "/opt/my rate"), ("PREFIX", "opt"), ("SYSCONF", "/etc&"), ("DESTDIR", "stage")]
)
def test_a_path_that_would_break_what_is_installed_is_refused(tmp_path: Path, name: str, value: str) -> None:
    environment = {**os.environ, "DESTDIR": str(tmp_path), name: value}
    done = subprocess.run(
        ["/bin/sh", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert f'DESTDIR: "{value}"' in done.stderr
    assert not list(tmp_path.iterdir())
