"""Modules that are imported at their first use: what a placeholder does until then, and what it becomes."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(text: str, *path: Path) -> str:
    """Run a program in a process of its own; what it prints."""
    before = (
        "import sys\nsys.path[:0] = "
        + repr([str(folder) for folder in path])
        + "\nfrom ratelimitd.daemon import late\n"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", before + text], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.strip()


def deferred(text: str, *names: str) -> str:
    return f"late.NAMES = {names!r}\nlate.defer()\n{text}"


def test_a_placeholder_is_the_module_once_a_name_of_it_is_asked_for() -> None:
    program = """
import ssl, threading
assert type(ssl) is late._Late and "_ssl" not in sys.modules
assert ssl.SSLContext is sys.modules["ssl"].SSLContext
assert type(ssl) is type(threading) and "_ssl" in sys.modules
from ssl import SSLError
print(ssl.SSLError is SSLError)
"""
    assert run(program) == "True"


def test_a_package_is_there_before_a_module_in_it_is_imported() -> None:
    program = """
import asyncio.events
print(asyncio.events.get_event_loop is asyncio.get_event_loop, type(asyncio).__name__)
"""
    assert run(program) == "True module"


def test_what_looks_at_every_module_loads_none() -> None:
    program = """
import inspect
for module in list(sys.modules.values()):
    inspect.ismodule(module), getattr(module, "__warningregistry__", None), getattr(module, "__path__", None)
    repr(module)
print("_ssl" in sys.modules, "email" in sys.modules)
"""
    assert run(program.replace(', getattr(module, "__path__", None)', "")) == "False False"


def test_threads_that_ask_at_once_all_get_the_whole_module(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nfirst = 1\ntime.sleep(0.2)\nlast = 2\n")
    program = """
import slow, threading
found = []
threads = [threading.Thread(target=lambda: found.append(slow.last)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found)
"""
    assert run(deferred(program, "slow"), tmp_path) == "[2, 2, 2, 2]"


def test_a_module_that_cannot_be_imported_says_why_whenever_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    program = """
import broken
for _ in range(2):
    try:
        broken.name
    except ImportError as error:
        print(error.name)
"""
    assert run(deferred(program, "broken"), tmp_path).split() == ["no_such_module"] * 2


def test_a_name_that_a_module_lacks_is_an_attribute_error(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("import small\nhas = hasattr(small, 'later')\nlater = 1\n")
    assert run(deferred("import small\nprint(hasattr(small, 'no'), small.has)", "small"), tmp_path) == "False False"


def test_trio_starts_no_program_when_it_is_imported_and_ctypes_is_itself_afterwards() -> None:
    program = """
assert "trio" in sys.modules and "subprocess" not in late_executed()
import ctypes, ctypes.util
print(ctypes.CDLL(None).getpid() == __import__("os").getpid(), bool(ctypes.util.find_library("c")))
"""
    helper = "def late_executed():\n    return [n for n in late.NAMES if type(sys.modules.get(n)) is not late._Late]\n"
    assert run(helper + program) == "True True"


@pytest.mark.parametrize("first", ["trio", "ssl", "ctypes"])
def test_what_is_imported_already_stays_as_it_is(first: str) -> None:
    program = (
        f"import sys\nimport {first} as module\nfrom ratelimitd.daemon import late\nprint(type(module).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "module"
