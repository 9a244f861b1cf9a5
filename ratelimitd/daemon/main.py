"""`ratelimitd`: the daemon's command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ratelimitd.late  # noqa: F401  before all that imports what it defers
from ratelimitd import __version__
from ratelimitd.config.read import naming, read
from ratelimitd.config.show import in_force
from ratelimitd.daemon import daemon
from ratelimitd.daemon.check import check
from ratelimitd.errors import InternalError, InUse, RatelimitdError
from ratelimitd.text import escape

if TYPE_CHECKING:
    from argparse import ArgumentParser

DEFAULT_CONFIG = Path("/etc/ratelimitd.toml")
EXIT_FAULT = 1
"""The exit status where the daemon has ended by a fault of its own, or could keep nowhere what it had answered."""
EXIT_WRONG = 2
"""The exit status where configuration or circumstances are wrong: starting again will not help."""
EXIT_IN_USE = 75
"""The exit status where another process has state_dir or an address (EX_TEMPFAIL of sysexits.h): later it may not."""


def _parser() -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(
        prog="ratelimitd",
        description="Postfix policy service that limits the recipients of each account.",
    )
    parser.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong, or print the effective settings, and exit"
    )
    parser.add_argument("--version", action="version", version=f"ratelimitd {__version__}")
    return parser


def _check(file: Path) -> None:
    """Print the effective settings, and warnings. Raises RatelimitdError."""
    config, warnings = check(file)
    print(in_force(config), end="")
    for warning in warnings:
        print(f"ratelimitd: warning: {escape(warning)}", file=sys.stderr)


def _run(file: Path) -> int:
    """Run the daemon until it is stopped; the exit status. Raises RatelimitdError."""
    config = read(file)
    with naming(config.file):
        return 0 if daemon.run(config) else EXIT_FAULT


def _plainly(arguments: list[str]) -> Path | None:
    """The configuration where the command line says no more than its file, as where a service is started.

    Then argparse, and what it imports, need not be in memory for as long as the daemon runs.
    """
    match arguments:
        case []:
            return DEFAULT_CONFIG
        case ["-c" | "--config", file] if not file.startswith("-"):
            return Path(file)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    file = _plainly(given)
    try:
        if file is not None:
            return _run(file)
        options = _parser().parse_args(given)
        if not options.check:
            return _run(options.config)
        _check(options.config)
    except RatelimitdError as error:
        print(f"ratelimitd: {escape(str(error))}", file=sys.stderr)
        if isinstance(error, InternalError):
            return EXIT_FAULT
        return EXIT_IN_USE if isinstance(error, InUse) else EXIT_WRONG
    except KeyboardInterrupt:  # Ctrl-C before it serves: from then on it is a signal like others
        pass
    return 0
