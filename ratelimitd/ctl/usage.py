"""The command line of `ratelimitctl`: its verbs and their options."""

import argparse
from pathlib import Path

from ratelimitd import __version__
from ratelimitd.control.commands import MAX_COUNT, MAX_INTERVAL_S, MAX_QUOTA, MIN_INTERVAL_S

EXIT_STATUSES = (
    "exit status: 0 done, 1 something is wrong or nothing was found, "
    "2 wrong usage or configuration, 3 no daemon is running"
)


def parser(default_config: Path) -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="ratelimitctl", description="Query and control ratelimitd.", epilog=EXIT_STATUSES
    )
    made.add_argument("-c", "--config", type=Path, default=default_config, metavar="FILE", help="default: %(default)s")
    made.add_argument("--json", action="store_true", help="answer in JSON")
    made.add_argument("--version", action="version", version=f"ratelimitctl {__version__}")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, description: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=description, description=description[0].upper() + description[1:] + ".")
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
        return sub

    verb("status", "how the daemon is doing")
    verb("show", "an account's quota, use and reset time under every limit").add_argument("key", metavar="KEY")
    ranking = verb("top", "who sends most in this period; refreshed until you type q")
    ranking.add_argument("--limit", metavar="NAME", help="under this [[limit]] only")
    ranking.add_argument("--count", type=_count, default=20, metavar="N", help="accounts to show; default: %(default)s")
    ranking.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="default: %(default)s")
    ranking.add_argument("--once", action="store_true", help="show it once and exit")
    setting = verb("set", "give an account a quota: until its period ends, or for good")
    setting.add_argument("key", metavar="KEY")
    setting.add_argument(
        "--quota", type=_quota, required=True, metavar="N", help='recipients per period, or "unlimited"'
    )
    setting.add_argument("--persist", action="store_true", help="for good, not only until the period ends")
    setting.add_argument("--limit", metavar="NAME", help="under this [[limit]]; needed if several count the account")
    reset = verb("reset", "set what an account has used to 0")
    reset.add_argument("key", metavar="KEY")
    reset.add_argument("--limit", metavar="NAME", help="under this [[limit]] only")
    verb("dump", "make the daemon write its memory to state_dir/cache.dump")
    verb("reload", "make the daemon read its configuration again and apply all of it, or nothing")
    verb("check", "check the configuration, the key plugins and the database")
    doctor = verb("doctor", "look at the daemon and at Postfix, and say what is wrong and how to fix it")
    doctor.add_argument("--postfix-config", type=Path, metavar="DIR", help="folder of main.cf; default: postconf's")
    verb("plugins", "which key plugins are installed, from which distribution, and which limits use them")
    migrate = verb("migrate", "convert the Perl daemon's MySQL table in place; safe to run again")
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return made


def _quota(text: str) -> int:
    if text == "unlimited":
        return 0
    if _is_number(text) and int(text) <= MAX_QUOTA:
        return int(text)
    raise argparse.ArgumentTypeError(f'"{text}": a number of recipients from 0 to {MAX_QUOTA}, or "unlimited"')


def _count(text: str) -> int:
    if _is_number(text) and 1 <= int(text) <= MAX_COUNT:
        return int(text)
    raise argparse.ArgumentTypeError(f'"{text}": a number from 1 to {MAX_COUNT}')


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        return seconds
    raise argparse.ArgumentTypeError(f'"{text}": seconds from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}')
