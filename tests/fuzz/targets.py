"""The targets: what is fuzzed, by name."""

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import commands, configurations, journals, mysql_server, postgresql_server, requests, rows

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": requests.check,
    "configuration": configurations.check,
    "journal": journals.check,
    "control": commands.check,
    "mysql": mysql_server.check,
    "postgresql": postgresql_server.check,
    "row": rows.check_read,
    "row-in-sqlite": rows.check_sqlite,
}


def corpus(target: str) -> list[bytes]:
    """The files that a target begins with."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]
