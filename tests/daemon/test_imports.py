"""What a daemon does not use, it does not load."""

import subprocess
import sys
from pathlib import Path

OPTIONAL = ["trio_mysql", "psycopg", "cryptography", "httpx", "prometheus_client"]
SCRIPT = """
import sys
from ratelimitd.daemon.main import main
assert main(["-c", sys.argv[1], "--check"]) == 0
print([name for name in sys.argv[2:] if name in sys.modules])
"""


def test_a_daemon_on_sqlite_imports_no_driver_of_a_server_and_nothing_that_is_optional(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text('[[limit]]\nname = "daily"\nkey = "email"\nperiod = "daily"\nquota = 1000\n')
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file), *OPTIONAL], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
