"""`ratelimitd`: the daemon's command line."""

import argparse
import sys
from functools import partial
from pathlib import Path

import ratelimitd.daemon.late  # noqa: F401  before all that imports what it defers
from ratelimitd import __version__
from ratelimitd.config.read import Configuration, naming, read
from ratelimitd.config.show import in_force
from ratelimitd.daemon import daemon, output
from ratelimitd.daemon.check import check
from ratelimitd.daemon.example import example
from ratelimitd.daemon.failure import FailureFile, log_it
from ratelimitd.errors import InternalError, InUse, RatelimitdError, StartError
from ratelimitd.net import systemd
from ratelimitd.text import escape

DEFAULT_CONFIG = Path("/etc/ratelimitd.toml")
EXIT_FAULT = 1
"""The exit status where the daemon has ended by a fault of its own, or could keep nowhere what it had answered; with
`--check` where standard output takes nothing."""
EXIT_WRONG = 2
"""The exit status where configuration or circumstances are wrong: starting again will not help."""
EXIT_IN_USE = 75
"""The exit status where another process has state_dir or an address (EX_TEMPFAIL of sysexits.h): later it may not."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratelimitd",
        description="Postfix policy service that limits the recipients of each account.",
        # Asked for the terminal's width, it would import shutil, with all that compresses.
        formatter_class=partial(argparse.HelpFormatter, width=78),
    )
    parser.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="say what is wrong, or print the effective settings, and exit"
    )
    instead.add_argument(
        "--example", action="store_true", help="print a configuration with every setting and its default, and exit"
    )
    parser.add_argument(
        "--failure-file", type=Path, metavar="FILE", help="why a start fails is written there, too; for init scripts"
    )
    parser.add_argument("--version", action="version", version=f"ratelimitd {__version__}")
    return parser


def _check(file: Path) -> None:
    """Print the effective settings, and warnings. Raises RatelimitdError, NotWritten."""
    output.prepare()
    config, warnings = check(file)
    output.write(in_force(config))
    for warning in warnings:
        print(f"ratelimitd: warning: {escape(warning)}", file=sys.stderr)


def _example() -> None:
    """Print the reference configuration. Raises StartError, NotWritten."""
    output.prepare()
    output.write(example())


def _run(file: Path, failures: FailureFile | None) -> int:
    """Run the daemon until it is stopped; the exit status. Raises RatelimitdError."""
    config: Configuration | None = None
    try:
        config = read(file)
        with naming(config.file):
            return 0 if daemon.run(config) else EXIT_FAULT
    except StartError as error:
        if failures:
            failures.write(error)
        if config or failures:
            log_it(config, error)
        systemd.failed()
        raise


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.check:
            _check(options.config)
        elif options.example:
            _example()
        else:
            return _run(options.config, FailureFile(options.failure_file) if options.failure_file else None)
    except RatelimitdError as error:
        print(f"ratelimitd: {escape(str(error))}", file=sys.stderr)
        if isinstance(error, InternalError):
            return EXIT_FAULT
        return EXIT_IN_USE if isinstance(error, InUse) else EXIT_WRONG
    except output.NotWritten as error:
        if str(error):
            print(f"ratelimitd: standard output: {error}", file=sys.stderr)
        return EXIT_FAULT
    except KeyboardInterrupt:  # Ctrl-C before it serves: from then on it is a signal like others
        pass
    return 0
