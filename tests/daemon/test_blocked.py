"""A file of the state directory that blocks, or is gone: it may stop a flush, never the mail nor the stop."""

import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.daemon.conftest import Start
from tests.daemon.process import Ratelimitd, config
from tests.instances.waiting import wait_until

BLOCKING = """
import sys, threading
from ratelimitd.daemon import main
from ratelimitd.stores.sqlite import SQLiteStore

SQLiteStore._flush = lambda *_: threading.Event().wait()
sys.argv[1:2] = []
sys.exit(main.main())
"""


def test_a_thread_that_never_returns_stops_neither_the_mail_nor_the_stop(folder: Path) -> None:
    text = config(store={"flush_interval_s": 0.1}, server={"shutdown_timeout_s": 1})
    daemon = Ratelimitd(folder, text, prefix=[sys.executable, "-c", BLOCKING])
    try:
        daemon.start()
        with daemon.client() as client:
            assert [client.ask() for _ in range(5)] == ["DUNNO"] * 5
        daemon.process.signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    finally:
        daemon.kill()
    said = "stopping without the last flush, which a file or disk blocks; counts are in the journal"
    assert daemon.log().count(said) == 1
    again = Ratelimitd(folder, text)
    again.start()
    assert again.stop() == 0
    assert again.used() == {"alice@example.com": 5}


def test_refused_records_that_cannot_be_kept_hold_up_nobody(make: Start) -> None:
    daemon = make(store={"flush_interval_s": 0.1})
    daemon.state.mkdir(exist_ok=True)
    os.mkfifo(daemon.state / "rejected.tsv")
    daemon.start()
    with closing(sqlite3.connect(daemon.database)) as database, database:
        database.execute(
            "CREATE TRIGGER no BEFORE INSERT ON ratelimit WHEN NEW.sender = 'bad@example.com' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with daemon.client() as client:
        assert client.ask("bad@example.com") == "DUNNO"
        daemon.wait_for_log("a refused record cannot be kept")
        assert client.ask() == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 1}


def test_a_pipe_in_the_database_s_place_makes_the_store_unavailable_until_it_is_gone(start: Start) -> None:
    daemon = start(store={"flush_interval_s": 0.1})
    with daemon.client() as client:
        client.ask()
        wait_until(lambda: daemon.used() == {"alice@example.com": 1}, "the first flush")
        daemon.database.unlink()
        os.mkfifo(daemon.database)
        client.ask()
        daemon.wait_for_log("not a regular file")
        daemon.database.unlink()
        client.ask()
        daemon.wait_for_log("the store is available again")
    assert daemon.stop() == 0
    assert daemon.used() == {"alice@example.com": 3}


def test_a_journal_folder_that_was_removed_is_made_again(start: Start) -> None:
    daemon = start(store={"flush_interval_s": 0.1})
    journal = daemon.state / "journal"
    with daemon.client() as client:
        client.ask()
        wait_until(lambda: daemon.used() == {"alice@example.com": 1}, "the first flush")
        shutil.rmtree(journal)
        client.ask()
        wait_until(journal.is_dir, "the folder")
        wait_until(lambda: daemon.used() == {"alice@example.com": 2}, "the next flush")
        client.ask()
        wait_until(lambda: daemon.used() == {"alice@example.com": 3}, "the flush after it")
    assert daemon.stop() == 0
    assert not [line for line in daemon.log() if "cannot be put away" in line]
