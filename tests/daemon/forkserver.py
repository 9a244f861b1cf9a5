"""A process that has imported the daemon and forks one on each request: in 20 ms, where a start takes half a second.

A request is one message on a socket: the child's `argv` and `env` as JSON, and three descriptors: its stdout, its
stderr, and a pipe that is told its pid, then its exit status (as `Popen.returncode` has it).
"""

import json
import os
import selectors
import socket
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ratelimitd.daemon.main import main

NUMBER = struct.Struct("q")
MAX_BYTES = 1 << 20


class Job(NamedTuple):
    """What a child is to become."""

    argv: list[str]
    env: dict[str, str]
    stdout: int
    stderr: int
    report: int

    def become(self) -> None:
        """Make this process as one that was started: a session of its own, and no descriptors but three."""
        os.setsid()
        os.chdir("/")
        os.dup2(self.stdout, 1)
        os.dup2(self.stderr, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(self.env)
        time.tzset()
        sys.argv = self.argv
        sys.path[:0] = [str(Path(self.argv[0]).parent), *filter(None, self.env.get("PYTHONPATH", "").split(":"))]


def _take(requests: socket.socket) -> Job | None:
    message, descriptors, _, _ = socket.recv_fds(requests, MAX_BYTES, 3)
    if not message:
        return None
    given = json.loads(message)
    stdout, stderr, report = descriptors
    return Job(given["argv"], given["env"], stdout, stderr, report)


def serve(requests: socket.socket) -> Job | None:
    """Fork on each request. It returns in a child, with its job; and with None when nobody can ask any more."""
    with selectors.DefaultSelector() as selector, requests:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    _report_end(selector, key)
                    continue
                job = _take(requests)
                if job is None or (pid := os.fork()) == 0:
                    return job
                os.close(job.stdout)
                os.close(job.stderr)
                os.write(job.report, NUMBER.pack(pid))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, job.report))


def _report_end(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, report = key.data
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(report, NUMBER.pack(status))
    os.close(report)
    selector.unregister(key.fd)
    os.close(key.fd)


if __name__ == "__main__":
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    if given is not None:
        given.become()
        sys.exit(main())
