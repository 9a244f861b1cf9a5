"""`ratelimitctl`: what an administrator asks of a daemon, running or not.

Exit statuses: 0 done; 1 the answer is no, or nothing was found; 2 wrong usage or configuration; 3 no daemon runs.
"""

import argparse
import json
import sys
from typing import Any, NamedTuple

from ratelimitd import plugins
from ratelimitd.config import read as config
from ratelimitd.config.read import Configuration
from ratelimitd.control.commands import (
    NO,
    NO_DAEMON,
    OK,
    WRONG,
    Answer,
    Command,
    Dump,
    Refused,
    Reload,
    Reset,
    Set,
    Show,
    Status,
    Top,
)
from ratelimitd.ctl import inventory, offline, tables, top
from ratelimitd.ctl.client import NoDaemon, answers, ask
from ratelimitd.ctl.doctor import diagnosis as doctor
from ratelimitd.ctl.migrate import migrate
from ratelimitd.ctl.usage import parser
from ratelimitd.daemon.check import resolve
from ratelimitd.daemon.main import DEFAULT_CONFIG
from ratelimitd.errors import RatelimitdError
from ratelimitd.text import escape


class Outcome(NamedTuple):
    """What a verb gave: for a program, for a person, and the exit status."""

    answer: Any
    text: str
    status: int = OK


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    options = parser(DEFAULT_CONFIG).parse_args(arguments)
    try:
        outcome = _plugins(options) if options.verb == "plugins" else _run(config.read(options.config), options)
        print(json.dumps(outcome.answer) + "\n" if options.json and outcome.answer else outcome.text, end="")
        return outcome.status
    except RatelimitdError as error:
        status = error.status if isinstance(error, Refused) else WRONG
        if options.json:
            print(json.dumps({"error": str(error), "exit": status}))
        else:
            print(f"ratelimitctl: {escape(str(error))}", file=sys.stderr)
        return status
    except (BrokenPipeError, KeyboardInterrupt):
        return NO


def _run(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    """Run a verb on a configuration. Raises RatelimitdError."""
    match options.verb:
        case "status":
            return _status(configuration)
        case "show":
            answer = _ask(configuration, Show(options.key))
            return Outcome(answer, tables.accounts(answer["limits"]), OK if answer["found"] else NO)
        case "top":
            return _top(configuration, options)
        case "set":
            answer = _ask(configuration, Set(options.key, options.quota, options.persist, options.limit))
            lost = "The quota was persistent; from the next period on the configured one counts.\n"
            return Outcome(answer, tables.accounts([answer]) + (lost if answer["gave_up_persistent"] else ""))
        case "reset":
            answer = _ask(configuration, Reset(options.key, options.limit))
            return Outcome(answer, tables.accounts(answer["limits"]))
        case "dump":
            answer = ask(configuration.control_socket, Dump())
            return Outcome(answer, answer["file"] + "\n")
        case "reload":
            answer = ask(configuration.control_socket, Reload())
            waiting = " ".join(answer["needs_start"])
            text = f"These changed settings are obeyed only at the next start: {waiting}\n" if waiting else ""
            return Outcome(answer, "The configuration is obeyed.\n" + text)
        case "check":
            return _check(configuration)
        case "doctor":
            answer = doctor.diagnose(configuration, options.postfix_config)
            return Outcome(answer, doctor.text(answer), NO if answer["faults"] else OK)
        case "migrate":
            done = migrate(configuration, options.dry_run)
            return Outcome({"dry_run": options.dry_run, "done": done}, "".join(f"{line}\n" for line in done))
        case verb:
            raise AssertionError(verb)


def _ask(configuration: Configuration, command: Command) -> Answer:
    """The running daemon's answer, or ours where none runs."""
    try:
        return ask(configuration.control_socket, command)
    except NoDaemon:
        return offline.answer(configuration, command)


def _status(configuration: Configuration) -> Outcome:
    try:
        answer = ask(configuration.control_socket, Status())
        return Outcome({"running": True, **answer}, tables.status(answer))
    except NoDaemon as error:
        answer = offline.answer(configuration, Status())
        left, store = answer["not_stored"], answer["store"]
        rows = [
            ("ratelimitd", f"is not running: {error}"),
            ("configuration", answer["config"]),
            ("store", f"{store['name']}, {'up' if store['up'] else 'AWAY'}"),
            ("not stored", f"{left['recipients']:,} recipients of {left['accounts']:,} accounts"),
        ]
        return Outcome(answer, tables.pairs(rows), NO_DAEMON)


def _top(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    path, once = configuration.control_socket, Top(options.limit, options.count, once=True)
    if options.once or not (options.json or sys.stdout.isatty()):
        ranking = ask(path, once)
        return Outcome(ranking, top.frame(ranking))
    if options.json:
        for ranking in answers(path, Top(options.limit, options.count, options.interval)):
            print(json.dumps(ranking), flush=True)
    else:
        top.watch(lambda: ask(path, once), options.interval)
    return Outcome(None, "")


def _plugins(options: argparse.Namespace) -> Outcome:
    answer = inventory.inventory(options.config)
    return Outcome(answer, inventory.text(answer), WRONG if answer["error"] else OK if inventory.works(answer) else NO)


def _check(configuration: Configuration) -> Outcome:
    """The configuration was read already, its plugins are loaded; now all that it names, and the database."""
    resolve(configuration)
    limits = [
        {"limit": limit.name, "key": limit.key_name, "plugin": _distribution(limit.key_name)}
        for limit in configuration.limits
    ]
    store, failure = "", ""
    try:  # last, for it may become the daemon's user, who need not be able to read what Python loads late
        store = offline.check_store(configuration)
    except Refused as error:
        failure = str(error)
    rows = [("configuration", f"{configuration.file}: right")]
    rows += [(f"limit {limit['limit']}", f"key {limit['key']}, of {limit['plugin']}") for limit in limits]
    rows += [("store", f"{store}: right" if store else failure.removeprefix("store: "))]
    answer = {"config": str(configuration.file), "limits": limits, "store": store, "error": failure or None}
    return Outcome(answer, tables.pairs(rows), NO if failure else OK)


def _distribution(plugin: str) -> str:
    for point in plugins.installed().get(plugin, []):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return "an unknown distribution"
