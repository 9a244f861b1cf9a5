"""`ratelimitctl`: what an administrator asks of a running daemon."""

import argparse
import sys
from pathlib import Path

from ratelimitd import __version__, config, inventory
from ratelimitd.cli import DEFAULT_CONFIG, EXIT_WRONG
from ratelimitd.errors import RatelimitdError
from ratelimitd.migrate import migrate


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parser = argparse.ArgumentParser(prog="ratelimitctl", description="Asks and steers a running ratelimitd.")
    parser.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--version", action="version", version=f"ratelimitctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="read the configuration and say what is wrong with it")
    verbs.add_parser("plugins", help="which key plugins are installed, whose they are, which limits use them")
    migrating = verbs.add_parser("migrate", help="make the Perl daemon's MySQL table ours, in place; safe to run again")
    migrating.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)
    if options.verb == "plugins":
        answer = inventory.inventory(options.config)
        print(inventory.text(answer), end="")
        return EXIT_WRONG if answer["error"] else 0 if inventory.works(answer) else 1
    try:
        read = config.read(options.config)
        if options.verb == "migrate":
            print(*migrate(read, options.dry_run), sep="\n")
            return 0
    except RatelimitdError as error:
        print(f"ratelimitctl: {error}", file=sys.stderr)
        return EXIT_WRONG
    print(f"{options.config}: right")
    return 0
