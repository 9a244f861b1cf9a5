"""A Postfix policy service that limits how many recipients each account may send to.

The map of the house. A part imports only from those below it (import-linter, in pyproject.toml):

    ctl/        `ratelimitctl`: its command line, what it does without a daemon, tables, `top`, `doctor`, `migrate`
    daemon/     `ratelimitd`: parts.py composes all parts, daemon.py is their life, reload.py, start.py, privileges.py
    control/    the admin channel: commands and answers, the socket, accounts, status, the cache dump
    metrics     what Prometheus sees
    config/     ratelimitd.toml becomes objects; every error names its place
    sync/       memory and store in step: schedule, flush, loader, recovery
    server/     Postfix's side: the pump decides for all connections     notify/   who is notified of a quota reached
    stores/     the Store protocol; SQLite, MySQL and MariaDB, PostgreSQL
    log/        log lines, and where they go                             state/    state directory and journal
    settings    every setting, its type, bounds and default              testing   for the tests of key plugins
    plugins     finds and loads key plugins
    core/       decides: policy, limits, windows, counters, memo; pure, without I/O, trio or clock
    net/        sockets: listeners, who may connect, HTTP, systemd
    keys        the key plugin API, and `email` and `domain`             request   a request of Postfix, from its bytes
    errors      what an administrator reads                              text      escaping, cutting, shortening
    logins      which logins are one account                             folders   folders by descriptor

How a request, a flush, a restart and a reload go is told in contrib/doc/inside.md.
"""

__version__ = "0.1.0"
