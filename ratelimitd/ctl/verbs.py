"""The verbs of `ratelimitctl`: what each asks of the daemon, or does without one, and its answer in both forms."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, cast

from ratelimitd import plugins
from ratelimitd.config import read as config
from ratelimitd.config.read import Configuration
from ratelimitd.control.accounts import Accounts
from ratelimitd.control.answers import Answer, Ranking
from ratelimitd.control.commands import (
    NO,
    NO_DAEMON,
    OK,
    WRONG,
    A,
    Command,
    Dump,
    History,
    PrintDump,
    Refused,
    Reload,
    Reset,
    Set,
    Show,
    Status,
    Top,
    Unset,
)
from ratelimitd.control.record import Edit
from ratelimitd.ctl import history, inventory, offline, tables
from ratelimitd.ctl.answers import Checked, CheckedLimit, Migrated, Report, line_of
from ratelimitd.ctl.bars import bars
from ratelimitd.ctl.client import NoDaemon, answers, ask
from ratelimitd.ctl.colours import DOCTOR, HISTORY, STATUS, Colours
from ratelimitd.ctl.doctor import diagnosis as doctor
from ratelimitd.ctl.page.content import Page
from ratelimitd.ctl.page.file import STDOUT, page_file
from ratelimitd.ctl.page.replayed import of_replay
from ratelimitd.ctl.page.reported import of_report
from ratelimitd.ctl.replay.replay import replay
from ratelimitd.ctl.report import table as report_table
from ratelimitd.ctl.report.report import report
from ratelimitd.ctl.top import top
from ratelimitd.ctl.top.frame import table
from ratelimitd.ctl.top.top import Wish
from ratelimitd.daemon import output
from ratelimitd.daemon.advice import advice
from ratelimitd.daemon.check import resolve
from ratelimitd.errors import StoreError
from ratelimitd.text import escape

Work = Callable[[Accounts], Awaitable[A]]
Alone = Callable[[Configuration, Callable[[Accounts], Awaitable[A]]], A]


class Outcome(NamedTuple):
    """What a verb gave: for programs, for people, the exit status, and how the text is coloured on a terminal."""

    answer: Answer | None
    text: str
    status: int = OK
    colours: Colours = ()


def run(options: argparse.Namespace) -> Outcome:
    """Run a verb. Raises RatelimitdError."""
    match options.verb:
        case "plugins":
            return _plugins(options)
        case "replay":
            return _with_page(
                options, of_replay, lambda: replay(config.read(options.config, lenient=True), options.logs)
            )
        case _:
            return _run_on(config.read(options.config), options)


def _with_page(options: argparse.Namespace, content: Callable[[A], Page], work: Callable[[], tuple[A, str]]) -> Outcome:
    """The outcome of what gives an answer and its text, and with `--html` a page of it."""
    if options.html is None:
        return Outcome(*work())
    if options.html == STDOUT and options.json:
        raise Refused("--json and --html - would both write to standard output")
    with page_file(options.html) as write:
        answer, text = work()
        write(content(answer))
    return Outcome(answer, "" if options.html == STDOUT else text)


def _report(configuration: Configuration, days: int) -> tuple[Report, str]:
    reported = report(configuration, days)
    return reported, report_table.text(reported, bars())


def _run_on(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    """Run a verb on a configuration. Raises RatelimitdError."""
    match options.verb:
        case "status":
            return _status(configuration)
        case "show":
            show = Show(options.key)
            account = _ask(configuration, show, lambda accounts: accounts.show(show), offline.look)
            return Outcome(account, tables.accounts(account.limits), OK if account.found else NO)
        case "history":
            past = History(options.key, options.limit, options.days)
            found = _ask(configuration, past, lambda accounts: accounts.history(past), offline.look)
            return Outcome(found, history.text(found, bars()), OK if found.found else NO, HISTORY)
        case "report":
            return _with_page(options, of_report, lambda: _report(configuration, options.days))
        case "top":
            return _top(configuration, options)
        case "set":
            return _set(configuration, options)
        case "unset":
            unset = Unset(options.key, options.limit, options.reason)
            taken_back = _edit(configuration, unset)
            return Outcome(taken_back, tables.accounts(taken_back.limits))
        case "reset":
            done = _edit(configuration, Reset(options.key, options.limit, options.reason))
            return Outcome(done, tables.accounts(done.limits))
        case "dump" if options.to:
            cache = ask(configuration.control_socket, PrintDump(options.count))
            return Outcome(cache, tables.cache(cache))
        case "dump":
            dump = ask(configuration.control_socket, Dump())
            return Outcome(dump, escape(dump.file) + "\n")
        case "reload":
            return _reload(configuration)
        case "check":
            return _check(configuration)
        case "doctor":
            diagnosis = doctor.diagnose(configuration, options.postfix_config)
            return Outcome(diagnosis, doctor.text(diagnosis), NO if diagnosis.faults else OK, DOCTOR)
        case "migrate":
            return _migrate(configuration, options)
        case verb:
            raise AssertionError(verb)


def _ask(configuration: Configuration, command: Command[A], work: Work[A], alone: Alone[A]) -> A:
    """The running daemon's answer, or ours if none runs: `alone` does the `work` then."""
    try:
        return ask(configuration.control_socket, command)
    except NoDaemon:
        return alone(configuration, work)


def _edit(configuration: Configuration, command: Command[A]) -> A:
    """The same for a command that changes accounts."""
    try:
        return ask(configuration.control_socket, command)
    except NoDaemon:
        return cast("A", offline.change(configuration, cast("Edit", command)))


def _status(configuration: Configuration) -> Outcome:
    try:
        running = ask(configuration.control_socket, Status())
        return Outcome(running, tables.status(running), OK, STATUS)
    except NoDaemon as error:
        stopped = offline.status(configuration)
        return Outcome(stopped, tables.status_without_daemon(stopped, str(error)), NO_DAEMON, STATUS)


def _set(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    given = Set(options.key, options.quota, options.persist, options.limit)
    given.until, given.for_s, given.reason = options.until, options.for_s, options.reason
    account = _edit(configuration, given)
    after = "afterwards" if account.until else "from the next period on"
    lost = f"The quota was persistent; {after} the configured one applies.\n"
    return Outcome(account, tables.accounts([account]) + (lost if account.gave_up_persistent else ""))


def _reload(configuration: Configuration) -> Outcome:
    answer = ask(configuration.control_socket, Reload())
    waiting = escape(" ".join(answer.needs_start))
    text = f"These changed settings need a restart: {waiting}\n" if waiting else ""
    return Outcome(answer, "The configuration is applied.\n" + text)


def _top(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    wish = Wish(options.limit, options.count, options.sort, options.interval)

    def asked(command: Top) -> Ranking:
        return ask(configuration.control_socket, command)

    if options.once or not (options.json or sys.stdout.isatty()):
        ranked = top.once(asked, wish)
        return Outcome(Ranking(ranked.now.time, ranked.limits()), table(ranked))
    if options.json:
        for ranking in top.each(answers(configuration.control_socket, wish.command(once=False)), wish):
            output.write(line_of(ranking))
    else:
        top.watch(asked, wish)
    return Outcome(None, "")


def _plugins(options: argparse.Namespace) -> Outcome:
    answer = inventory.inventory(options.config)
    return Outcome(answer, inventory.text(answer), WRONG if answer.error else OK if inventory.works(answer) else NO)


def _migrate(configuration: Configuration, options: argparse.Namespace) -> Outcome:
    """Each line is printed when it is true: no later failure, nor a signal, can keep it from being seen."""
    from ratelimitd.ctl.migrate.migrate import migrate  # with a database's driver

    done: list[str] = []

    def say(line: str) -> None:
        done.append(line)
        with suppress(OSError):  # who reads it may have gone; a migration is not given up for that
            if not options.json:
                print(tables.printable(line), flush=True)

    try:
        flags = {"dry_run": options.dry_run, "back": options.back, "perl_stopped": options.perl_stopped}
        migrate(configuration, say, **flags)
    except StoreError as error:
        if not options.json:
            raise
        return Outcome(Migrated(options.dry_run, done, str(error)), "", NO)
    return Outcome(Migrated(options.dry_run, done, None), "")


def _check(configuration: Configuration) -> Outcome:
    """The file has been read and its plugins are loaded; now everything that it names, and the database."""
    remarks = [*resolve(configuration), *map(str, advice(configuration))]
    limits = [CheckedLimit(limit.name, limit.key_name, _distribution(limit.key_name)) for limit in configuration.limits]
    store, failure, status = offline.CheckedStore("", is_there=False, remarks=[]), "", OK
    try:  # last: it may become the daemon's user, who may not be able to read what Python loads late
        store = offline.check_store(configuration)
    except Refused as error:
        failure, status = str(error), error.status
    rows = [("configuration", f"{configuration.file}: valid")]
    rows += [(f"limit {limit.limit}", f"key {limit.key}, of {limit.plugin}") for limit in limits]
    state = "available" if store.is_there else "not there yet"
    rows += [("store", f"{store.name}: {state}" if store.name else failure.removeprefix("store: "))]
    remarks += store.remarks
    rows += [("remark", line) for line in remarks]
    answer = Checked(str(configuration.file), limits, store.name, failure or None, remarks)
    return Outcome(answer, tables.pairs(rows), status)


def _distribution(plugin: str) -> str:
    for point in plugins.installed().get(plugin, []):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return "an unknown distribution"
