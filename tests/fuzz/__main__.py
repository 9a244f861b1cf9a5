"""The long run: `python -m tests.fuzz TARGET SECONDS [FOLDER]`, coverage-guided by atheris (the extra `fuzz`).

New inputs that reach new code go to FOLDER, by default a temporary one; an input that fails is written to it as
`crash-...`, and belongs into the corpus once it is mended.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["ratelimitd"]):
    from ratelimitd import settings
    from tests.fuzz.targets import CORPUS, TARGETS


def _words() -> list[str]:
    """What a file of configuration, a request or a command is made of."""
    names: set[str] = set()
    for table in vars(settings).values():
        names.update(getattr(table, "__struct_fields__", ()))
    names.update(
        ["[[limit]]", "[server]", "[store]", "[keys]", "[log]", "[[notify]]", "ratelimitd-journal 1 0a 1\\x0a"]
    )
    names.update(["request=smtpd_access_policy\\x0a", "protocol_state=RCPT\\x0a", "protocol_state=DATA\\x0a"])
    names.update(
        ["sasl_username=", "instance=", "recipient=", "recipient_count=", "\\x0a\\x0a", "\\xe2\\x80\\xa8", "@"]
    )
    return sorted(names)


def main(target: str, seconds: str, folder: str = "") -> None:
    """Run until the time is over; atheris ends the process."""
    check: Callable[[bytes], None] = TARGETS[target]
    found = Path(folder or tempfile.mkdtemp(prefix=f"ratelimitd-fuzz-{target}-"))
    found.mkdir(parents=True, exist_ok=True)
    dictionary = found.with_suffix(".dict")
    dictionary.write_text("".join(f'"{word}"\n' for word in _words()))
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=1024"]
    arguments = [*limits, f"-dict={dictionary}", f"-artifact_prefix={found}/", "-print_final_stats=1"]
    setup: Any = atheris.Setup
    setup([sys.argv[0], *arguments, str(found), str(CORPUS / target)], check)
    atheris.Fuzz()


main(*sys.argv[1:])
