"""`ratelimitctl`: what an administrator asks of a running daemon."""

import argparse
import sys

from ratelimitd import __version__, config, inventory
from ratelimitd.cli import DEFAULT_CONFIG, EXIT_WRONG
from ratelimitd.errors import RatelimitdError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parser = argparse.ArgumentParser(prog="ratelimitctl", description="Asks and steers a running ratelimitd.")
    parser.add_argument("-c", "--config", default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--version", action="version", version=f"ratelimitctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="read the configuration and say what is wrong with it")
    verbs.add_parser("plugins", help="which key plugins are installed, whose they are, which limits use them")
    options = parser.parse_args(arguments)
    if options.verb == "plugins":
        answer = inventory.inventory(options.config)
        print(inventory.text(answer), end="")
        return EXIT_WRONG if answer["error"] else 0 if inventory.works(answer) else 1
    try:
        config.read(options.config)
    except RatelimitdError as error:
        print(f"ratelimitctl: {error}", file=sys.stderr)
        return EXIT_WRONG
    print(f"{options.config}: right")
    return 0
