"""The command line of `ratelimitctl`: its verbs and their options."""

import argparse
import os
from pathlib import Path

from ratelimitd import __version__
from ratelimitd.control.commands import (
    MAX_COUNT,
    MAX_DAYS,
    MAX_FOR_S,
    MAX_INTERVAL_S,
    MAX_QUOTA,
    MAX_REASON,
    MIN_INTERVAL_S,
)
from ratelimitd.ctl.top.frame import SORTS

EXIT_STATUSES = (
    "exit status: 0 done, 1 something is wrong or nothing was found, "
    "2 wrong usage or configuration, 3 no daemon is running"
)

PRINTED_ACCOUNTS = 100
"""What `dump -` prints at most, unless it is told otherwise."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


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
        the_file = f"default: {default_config}"
        sub.add_argument("-c", "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=the_file)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
        return sub

    verb("status", "how the daemon is doing")
    verb("show", "an account's quota, use and reset time under every limit").add_argument(
        "key", type=_text, metavar="KEY"
    )
    past = verb("history", "what an account used in each window of the last days, with a bar for each")
    past.add_argument("key", type=_text, metavar="KEY")
    past.add_argument("--limit", type=_text, metavar="NAME", help="under this [[limit]] only")
    _days(past)
    ranking = verb("top", "who sends most in this period; refreshed until you type q")
    ranking.add_argument("--limit", type=_text, metavar="NAME", help="under this [[limit]] only")
    ranking.add_argument("--count", type=_count, default=20, metavar="N", help="accounts to show; default: %(default)s")
    ranking.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="default: %(default)s")
    ranking.add_argument(
        "--sort", choices=SORTS, default="use", help="what comes first: use, share of the quota, or rate (per minute)"
    )
    ranking.add_argument("--once", action="store_true", help="show it once and exit")
    setting = verb("set", "give an account a quota: until its period ends, until a time, or for good")
    setting.add_argument(
        "key", type=_text, metavar="KEY", help="an account, or @a.domain for each account of it (--persist)"
    )
    setting.add_argument(
        "--quota", type=_quota, required=True, metavar="N", help='recipients per period, or "unlimited"'
    )
    lasting = setting.add_mutually_exclusive_group()
    lasting.add_argument("--persist", action="store_true", help="for good, not only until the period ends")
    lasting.add_argument(
        "--until", type=_text, metavar="TIME", help='until "2026-12-01 18:00" in the configured timezone'
    )
    lasting.add_argument("--for", type=_duration, metavar="TIME", dest="for_s", help="for so long: 90m, 12h, 3d, 2w")
    setting.add_argument(
        "--limit", type=_text, metavar="NAME", help="under this [[limit]]; needed if several count the account"
    )
    _reason(setting)
    unset = verb("unset", "take back the quota that an account, or @a.domain, was given, under every limit")
    unset.add_argument("key", type=_text, metavar="KEY")
    unset.add_argument("--limit", type=_text, metavar="NAME", help="under this [[limit]] only")
    _reason(unset)
    reset = verb("reset", "set what an account has used to 0, under every limit that counts it")
    reset.add_argument("key", type=_text, metavar="KEY")
    reset.add_argument("--limit", type=_text, metavar="NAME", help="under this [[limit]] only")
    _reason(reset)
    dump = verb("dump", "make the daemon write its memory to state_dir/cache.dump")
    dump.add_argument(
        "to", nargs="?", choices=["-"], metavar="-", help="print it instead, of many accounts those that have used most"
    )
    dump.add_argument(
        "--count", type=_count, default=PRINTED_ACCOUNTS, metavar="N", help="accounts to print; default: %(default)s"
    )
    verb("reload", "make the daemon read its configuration again and apply all of it, or nothing")
    verb("check", "check the configuration, the key plugins and the database")
    doctor = verb("doctor", "look at the daemon and at Postfix, and say what is wrong and how to fix it")
    doctor.add_argument("--postfix-config", type=Path, metavar="DIR", help="folder of main.cf; default: postconf's")
    verb("plugins", "which key plugins are installed, from which distribution, and which limits use them")
    replayed = verb("replay", "let the configured limits decide on a mail log: whom they would have refused, and when")
    replayed.add_argument(
        "logs", nargs="+", metavar="LOG", help="mail logs, also .gz, .xz and .bz2, in any order; -: stdin"
    )
    _page(replayed)
    reported = verb(
        "report", "what accounts used in the last days, who sent most, who was over, and what a quota would do"
    )
    _days(reported)
    _page(reported)
    migrate = verb("migrate", "convert the Perl daemon's MySQL table in place, or back; safe to run again")
    way = migrate.add_mutually_exclusive_group()
    way.add_argument("--back", action="store_true", help="the other way: the Perl daemon runs on the table again")
    way.add_argument("--perl-stopped", action="store_true", help="the Perl daemon is stopped, whatever looks like it")
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return made


def _days(of: argparse.ArgumentParser) -> None:
    of.add_argument(
        "--days", type=_number_of_days, default=30, metavar="N", help="today among them; default: %(default)s"
    )


def _reason(of: argparse.ArgumentParser) -> None:
    of.add_argument("--reason", type=_one_line, default="", metavar="TEXT", help="why, for the log")


def _page(of: argparse.ArgumentParser) -> None:
    of.add_argument("--html", metavar="FILE", help="write a page with pictures, too; -: only that, to standard output")


def _text(argument: str) -> str:
    """The argument; bytes that are not UTF-8 as they are shown of a login."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")


def _one_line(text: str) -> str:
    if len(text) <= MAX_REASON and text.isprintable():
        return text
    raise argparse.ArgumentTypeError(f"one line of at most {MAX_REASON} characters")


def _duration(text: str) -> int:
    number, unit = text[:-1], _SECONDS.get(text[-1:])
    if unit and _is_number(number) and 0 < int(number) * unit <= MAX_FOR_S:
        return int(number) * unit
    raise argparse.ArgumentTypeError(f'"{text}": a number and a unit, as in 90m, 12h, 3d or 2w')


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


def _number_of_days(text: str) -> int:
    if _is_number(text) and 1 <= int(text) <= MAX_DAYS:
        return int(text)
    raise argparse.ArgumentTypeError(f'"{text}": a number from 1 to {MAX_DAYS}')


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
