"""What a daemon does not use, it does not load."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.daemon.process import Ratelimitd, changed, config

DRIVERS = ["trio_mysql", "psycopg", "cryptography", "httpx", "prometheus_client"]
OPTIONAL = [
    *DRIVERS,
    *("_ssl", "_hashlib", "_ctypes", "_asyncio", "asyncio.events", "anyio", "concurrent.futures", "multiprocessing"),
    *(
        "email",
        "http",
        "urllib.request",
        "zipfile",
        "importlib.resources",
        "importlib.metadata._meta",
        "csv",
    ),
    *("_posixsubprocess", "bz2", "_lzma", "idna.core", "calendar", "ratelimitd.stores.looking", "ratelimitd.ctl"),
    *("ratelimitd.stores.mysql", "ratelimitd.stores.postgresql", "ratelimitd.metrics", "ratelimitd.notify.webhook"),
]
LATE = ["ssl", "asyncio", "hashlib", "importlib.metadata", "subprocess", "ctypes", "difflib", "msgspec.inspect"]
CHECKING = """
import sys
from ratelimitd.daemon.main import main
assert main(["-c", sys.argv[1], "--check"]) == 0
print([name for name in sys.argv[2:] if name in sys.modules])
"""
TELLING = """
import atexit, json, sys
import ratelimitd.daemon.late

def tell():
    late = [name for name, module in sys.modules.items() if type(module) is ratelimitd.daemon.late._Late]
    with open({file!r}, "w") as file:
        json.dump([sorted(sys.modules), late], file)

atexit.register(tell)
"""


def test_a_configuration_for_sqlite_imports_no_driver_of_a_server_and_nothing_that_is_optional(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text('[[limit]]\nname = "daily"\nkey = "email"\nperiod = "daily"\nquota = 1000\n')
    done = subprocess.run(
        [sys.executable, "-c", CHECKING, str(file), *DRIVERS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_daemon_on_sqlite_has_served_flushed_and_reloaded_without_what_only_others_use(folder: Path) -> None:
    told = folder / "told"
    text = config(store={"flush_interval_s": 0.5})
    daemon = Ratelimitd(folder, text, prefix=changed(TELLING.format(file=str(told))))
    try:
        daemon.start()
        with daemon.client() as client:
            client.ask()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is reloaded")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    loaded, late = msgspec.json.decode(told.read_bytes(), type=tuple[list[str], list[str]])
    assert "trio" in loaded
    assert [name for name in OPTIONAL if name in loaded] == []
    assert [name for name in LATE if name not in late] == []
