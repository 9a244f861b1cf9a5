"""SQL through a server's own command-line client, and the rows it prints."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class SQLError(Exception):
    """What the client said."""


def quote(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def parse_rows(output: str) -> list[tuple[str, ...]]:
    """The rows of the client's batch output; NULL comes as the text NULL."""
    return [
        tuple(re.sub(r"\\([nt0\\])", lambda found: _ESCAPES[found[1]], value) for value in line.split("\t"))
        for line in output.split("\n")[:-1]
    ]


def run_sql(client: Sequence[str | Path], text: str, timeout: float) -> list[tuple[str, ...]]:
    """Run statements (the first error ends them) and return the rows of all of them."""
    command = [*client, "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
    data = text.encode("utf-8", "surrogateescape")
    result = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
    if result.returncode != 0:
        raise SQLError(result.stderr.decode("utf-8", "replace").strip())
    return parse_rows(result.stdout.decode("utf-8", "surrogateescape"))
