"""`ratelimitctl`: runs one verb (verbs.py), prints its answer as text or JSON, and gives the exit status.

Exit statuses: 0 done; 1 something is wrong, or nothing was found; 2 wrong usage or configuration; 3 no daemon is
running.
"""

import argparse
import sys

import ratelimitd.daemon.late  # noqa: F401  before all that imports what it defers
from ratelimitd.control.answers import Failure
from ratelimitd.control.commands import NO, WRONG, Refused
from ratelimitd.ctl import tables
from ratelimitd.ctl.answers import line_of
from ratelimitd.ctl.colours import shown
from ratelimitd.ctl.usage import parser
from ratelimitd.ctl.verbs import run
from ratelimitd.daemon import output
from ratelimitd.daemon.main import DEFAULT_CONFIG
from ratelimitd.errors import RatelimitdError, StoreError
from ratelimitd.text import escape


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; gives the exit status."""
    output.prepare()
    try:
        return _answer(_options(arguments))
    except output.NotWritten as error:
        if str(error):
            print(f"ratelimitctl: standard output: {error}", file=sys.stderr)
        return NO
    except KeyboardInterrupt:
        return NO


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for. Raises NotWritten, SystemExit."""
    try:
        return parser(DEFAULT_CONFIG).parse_args(arguments)
    except SystemExit:  # it may have printed help
        output.write("")
        raise


def _answer(options: argparse.Namespace) -> int:
    """Run a verb and print what it gives. Raises NotWritten."""
    try:
        outcome = run(options)
    except RatelimitdError as error:
        status = error.status if isinstance(error, Refused) else NO if isinstance(error, StoreError) else WRONG
        if options.json:
            output.write(line_of(Failure(str(error), status)))
        else:
            print(f"ratelimitctl: {escape(str(error))}", file=sys.stderr)
        return status
    if options.json and outcome.answer:
        output.write(line_of(outcome.answer))
    else:
        output.write(shown(tables.printable(outcome.text), outcome.colours))
    return outcome.status
