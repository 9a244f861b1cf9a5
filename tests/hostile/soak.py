"""The soak: real Postfix, real MariaDB, and a daemon that is reloaded, restarted and rotated while mail flows.

python -m tests.hostile.soak SECONDS
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGUSR1
from statistics import linear_regression, median

from tests.conftest import open_folder
from tests.daemon.process import Ratelimitd, config
from tests.hostile.figures import rss
from tests.instances.mariadb import MariaDB
from tests.instances.postfix import Postfix
from tests.instances.smtp import Smtp

SENDERS = 3
MESSAGES = 4
RECIPIENTS = ("a@example.org", "b@example.org")
PASSWORD = "secret"
QUOTA = 1_000_000


@dataclass
class Figures:
    """What came of it."""

    accepted: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    runs: list[list[tuple[float, int]]] = field(default_factory=list)
    stored: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def slopes(self, after: float) -> list[float]:
        """Growth of memory in KiB per minute, for each run of the daemon, without its beginning."""
        slopes: list[float] = []
        for run in self.runs:
            late = [(at, size) for at, size in run if at - run[0][0] >= after]
            if len(late) >= 10:
                times, sizes = zip(*late, strict=True)
                slopes.append(linear_regression(times, sizes).slope * 60 / 1024)
        return slopes


class Soak:
    """One soak; `run` takes `seconds` and a little more."""

    def __init__(self, folder: Path, postfix: Postfix, mariadb: MariaDB, seconds: float) -> None:
        self.figures = Figures()
        self._seconds = seconds
        self._postfix = postfix
        self._mariadb = mariadb
        self._lock = threading.Lock()
        self._over = threading.Event()
        mariadb.sql("CREATE DATABASE soak")
        mariadb.add_user("soak", PASSWORD)
        text = config(
            server={"max_transactions": 1000},  # full at once: what grows after that is a leak
            store={
                "backend": "mysql",
                "unix_socket": str(mariadb.socket),
                "user": "soak",
                "password": PASSWORD,
                "database": "soak",
                "flush_interval_s": 0.5,
            },
            limit=[{"quota": QUOTA}, {"name": "pool", "key": "domain", "period": "monthly", "quota": QUOTA}],
        )
        self.daemon = Ratelimitd(folder, text)

    def run(self) -> Figures:
        """Start everything, let mail flow, end everything."""
        service = f"inet:127.0.0.1:{self.daemon.port}, timeout=20s, try_limit=30, default_action=DUNNO"
        self.daemon.start()
        self._postfix.start({"smtpd_sender_restrictions": f"check_policy_service {{ {service} }}"})
        for number in range(SENDERS):
            self._postfix.add_user(f"user{number}", "example.com", PASSWORD)
        senders = [threading.Thread(target=self._send, args=(f"user{number}",)) for number in range(SENDERS)]
        try:
            for sender in senders:
                sender.start()
            self._disturb()
        finally:
            self._over.set()
            for sender in senders:
                sender.join(120)
        if self.daemon.stop() != 0:
            self.figures.errors.append("the daemon's exit status")
        self._collect()
        return self.figures

    def _send(self, user: str) -> None:
        """Session after session; whatever is not accepted is a failure."""
        login = f"{user}@example.com"
        while not self._over.is_set():
            try:
                with Smtp(self._postfix.port, timeout=120) as smtp:
                    replies = [smtp.login(login, PASSWORD)]
                    for _ in range(MESSAGES):
                        replies += smtp.message(login, *RECIPIENTS)
                    smtp.quit()
                bad = [str(reply) for reply in replies if reply.code >= 400]
            except (OSError, ConnectionError) as error:
                bad = [repr(error)]
                replies = []
            with self._lock:
                self.figures.failures += bad
                self.figures.accepted[login] += 0 if bad else MESSAGES * len(RECIPIENTS)

    def _disturb(self) -> None:
        """Restart four times, and in between rotate the log, reload and dump."""
        began = time.monotonic()
        step, restart_s = max(1.0, self._seconds / 80), self._seconds / 5
        deeds: list[Callable[[], None]] = [self._rotate, self._reload, self._dump]
        self.figures.runs.append([])
        turn, restarted = 0, began
        while (now := time.monotonic()) - began < self._seconds:
            deeds[turn % len(deeds)]()
            turn += 1
            until = now + step
            while time.monotonic() < until:
                self.figures.runs[-1].append((time.monotonic(), rss(self.daemon.process.pid)))
                time.sleep(0.2)
            if time.monotonic() - restarted > restart_s:
                restarted = time.monotonic()
                self._restart()

    def _rotate(self) -> None:
        self.figures.done["rotations"] += 1
        self.daemon.log_file.rename(self.daemon.log_file.with_name(f"log.{self.figures.done['rotations']}"))
        self.daemon.signal(SIGHUP)

    def _reload(self) -> None:
        self.figures.done["reloads"] += 1
        self.daemon.signal(SIGHUP)

    def _dump(self) -> None:
        self.figures.done["dumps"] += 1
        self.daemon.signal(SIGUSR1)

    def _restart(self) -> None:
        self.figures.done["restarts"] += 1
        if self.daemon.stop() != 0:
            self.figures.errors.append("the daemon's exit status")
        self.daemon.start()
        self.figures.runs.append([])

    def _collect(self) -> None:
        rows = self._mariadb.sql("SELECT sender, used FROM ratelimit WHERE limit_name = 'default'", "soak")
        self.figures.stored = {sender: int(used) for sender, used in rows}
        logs = [file.read_text(encoding="utf-8") for file in self.daemon.folder.glob("log*")]
        lines = [line[25:] for text in logs for line in text.splitlines()]
        self.figures.done["log lines of requests"] = sum("status=" in line for line in lines)
        self.figures.errors += [line for line in lines if "cannot" in line or "failed" in line or "could not" in line]


def main(seconds: float) -> None:
    """Run a soak in a folder of its own and print its figures."""
    with open_folder() as mail, open_folder() as data, tempfile.TemporaryDirectory(prefix="ratelimitd-soak-") as folder:
        postfix, mariadb = Postfix(mail), MariaDB(data)
        mariadb.start()
        soak = Soak(Path(folder), postfix, mariadb, seconds)
        try:
            figures = soak.run()
        finally:
            soak.daemon.kill()
            postfix.stop()
            mariadb.stop()
    print("recipients accepted", dict(figures.accepted), "stored", figures.stored)
    print("SMTP failures", len(figures.failures), figures.failures[:5], "errors", figures.errors[:5])
    print("done", dict(figures.done))
    for number, run in enumerate(filter(None, figures.runs)):  # the last may have ended before it was looked at
        sizes = [size / 1024 for _, size in run]
        print(f"run {number}: RSS {sizes[0]:.0f} KiB first, {max(sizes):.0f} most, {sizes[-1]:.0f} last")
    slopes = figures.slopes(seconds / 20)
    print(
        "RSS slope in KiB/min, run by run:", [round(slope, 1) for slope in slopes], "median", round(median(slopes), 1)
    )


if __name__ == "__main__":
    main(float(sys.argv[1]))
