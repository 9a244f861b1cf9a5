"""What reading a configuration must give, whatever is in the file: a configuration, or one line about it."""

from pathlib import Path

from ratelimitd.config.read import read
from ratelimitd.config.show import in_force
from ratelimitd.errors import ConfigError, StartError
from tests.fuzz.scratch import FOLDER

_FILE = FOLDER / "ratelimitd.toml"


def check(data: bytes) -> None:
    """Read a file of these bytes. Raises AssertionError, or whatever the reader ought not to raise."""
    if b"_file" in data or b"tls_ca" in data or b"server_public_key" in data:
        return  # what they name is read: a fuzzer may find a file that never ends
    _FILE.write_bytes(data)
    try:
        config = read(_FILE)
    except (ConfigError, StartError) as error:
        one_line(str(error), _FILE)
        return
    finally:
        _FILE.unlink()
    shown = in_force(config)
    _FILE.write_text(shown, encoding="utf-8")
    try:
        if "(not shown)" not in shown:
            assert in_force(read(_FILE)) == shown
    finally:
        _FILE.unlink()


def one_line(text: str, file: Path) -> None:
    """An error for the administrator is one line that names the file."""
    assert text.isprintable(), text
    assert text.startswith(str(file)), text
