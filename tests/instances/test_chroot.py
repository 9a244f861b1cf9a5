"""Is a private Debian one, does it leave this machine alone, and does it go?"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.instances import cache, chroot
from tests.instances.chroot import Debian
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.real


def test_it_is_the_debian_it_is_called(debian12: Debian, debian13: Debian) -> None:
    for debian, number, python in ((debian12, "12", "3.11"), (debian13, "13", "3.13")):
        assert f"VERSION_ID={number}\n" in debian.run("cat", "/etc/os-release").stdout.replace('"', "")
        assert (
            debian.run("python3", "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])").stdout
            == python + "\n"
        )


def test_what_is_written_in_it_is_in_no_other(debian12: Debian, folder: Path) -> None:
    debian12.sh("echo written >/etc/passwd; rm /etc/group")
    assert debian12.path("/etc/passwd").read_text() == "written\n"
    with Debian(chroot.tree(cache.folder(), chroot.BOOKWORM), folder) as other:
        assert "root:" in other.path("/etc/passwd").read_text()
        assert other.path("/etc/group").exists()


def test_where_no_layer_can_be_it_is_a_copy(folder: Path) -> None:
    (unsuitable := folder / "a,b").mkdir()  # overlayfs takes no comma in a path
    lower = chroot.tree(cache.folder(), chroot.TRIXIE)
    with Debian(lower, unsuitable) as debian:
        debian.sh("echo written >/etc/passwd")
        assert not list((unsuitable / "upper").iterdir())
    assert "root:" in (lower / "etc/passwd").read_text()


def test_its_ports_and_processes_are_its_own_and_end_with_it(debian13: Debian) -> None:
    port = free_port()
    listen = (
        f"import os, socket, sys; listener = socket.create_server(('127.0.0.1', {port}))\n"
        "if os.fork(): sys.exit()\n"
        "os.setsid(); os.close(1); os.close(2); listener.accept()[0].recv(1); os._exit(0)"
    )
    with socket.create_server(("127.0.0.1", port)):
        debian13.run("python3", "-c", listen)
        debian13.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; head -c0 <&3")
    debian13.sh("sleep 1000 </dev/null >/dev/null 2>&1 &")
    assert "sleep\n" in debian13.sh("cat /proc/[0-9]*/comm").stdout
    outside = [path for path in Path("/proc").glob("[0-9]*") if _is(path, "sleep", debian13)]
    assert len(outside) == 1
    debian13.stop()
    assert not outside[0].exists()


def _is(process: Path, name: str, debian: Debian) -> bool:
    try:
        return (process / "comm").read_text() == f"{name}\n" and os.path.samefile(process / "root", debian.path("/"))
    except OSError:
        return False


def test_a_killed_test_run_leaves_no_system_behind(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.instances import cache, chroot\n"
        f"debian = chroot.Debian(chroot.tree(cache.folder(), chroot.TRIXIE), Path({str(folder)!r}))\n"
        "print(debian.path('/'), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as run:
        assert run.stdout is not None
        root = Path(run.stdout.readline().strip())
        assert root.exists()
        run.kill()
    wait_until(lambda: not root.exists(), "the system's end")


def test_a_command_that_fails_says_what_it_said(debian12: Debian) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        debian12.sh("echo the reason >&2; exit 7; true")
    assert caught.value.returncode == 7
    assert caught.value.__notes__ == ["the reason\n"]
