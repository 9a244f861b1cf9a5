"""The journal: every charge is in an append-only file before its reply is sent.

A segment is one file in `state_dir/journal`, `NUMBER.segment`: a header line, then frames of a length, a CRC-32 and
records. One frame is one batch of requests, so a torn frame at the end is a batch that was never answered, and is cut.
A record is one line, its fields separated by NUL (which no request contains):

    KIND+instance  recipient  recipients charged  [limit  expiry  key]...

KIND is R (at RCPT) or D (at DATA and END-OF-MESSAGE), lower case where the answer was a refusal, T for a total.
A write that fails (disk full, I/O error) is counted; charges stay in memory, and `rotate` tries again.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ratelimitd.charges import Charges
from ratelimitd.counters import Counter
from ratelimitd.errors import JournalError

Sync = Literal["flush", "always", "never"]
Window = tuple[str, int, str]
"""A limit's name, the end of its window, a key."""

MAGIC = "ratelimitd-journal"
VERSION = 1
_FRAME = struct.Struct(">II")
_HEADER = re.compile(rb"ratelimitd-journal ([0-9]+) ([0-9a-f]+) ([0-9]+)\n")
_FILE = re.compile(r"([0-9]{1,18})\.segment")
_FILE_MODE = 0o640


@dataclass(slots=True)
class Recovered:
    """What a segment's file says: it replaces those from `first` to `number`. `damaged` counts unreadable bytes."""

    number: int
    first: int
    node: str
    records: list[str] = field(default_factory=list)
    damaged: int = 0

    def totals(self) -> dict[Window, int]:
        """Recipients per account and window."""
        by_accounts: dict[str, int] = {}
        for record in self.records:
            _, _, recipients, accounts = record.split("\0", 3)
            by_accounts[accounts] = by_accounts.get(accounts, 0) + int(recipients)
        totals: dict[Window, int] = {}
        for accounts, count in by_accounts.items():
            parts = accounts.split("\0")
            for limit, expiry, key in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                window = (limit, int(expiry), key)
                totals[window] = totals.get(window, 0) + count
        return totals

    def remember(self, charges: Charges, skip: int) -> None:
        """Put the transactions into the memo, but for the first `skip` records."""
        for record in self.records[max(0, skip) :]:
            head, recipient, recipients, _ = record.split("\0", 3)
            kind, instance = head[0], head[1:]
            if kind == "T" or not instance:
                continue
            transaction = charges.find(instance) or charges.begin(instance)
            if kind in "Rr":
                charges.charge_recipient(transaction, recipient, kind == "R")
            else:
                transaction.charge_message(int(recipients), kind == "D")


class Journal:
    """The segments of one node. `write` and `rotate` never raise; `failures` counts what could not be written."""

    def __init__(self, folder: Path, node: str, sync: Sync = "flush") -> None:
        self.folder = folder
        self.node = node
        self.sync = sync
        self.failures = 0
        self.error: OSError | None = None
        self.number = 0
        self._fd = -1
        self._size = 0

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, records: list[str]) -> None:
        """Append a batch: one frame, one write, before any of its replies is sent."""
        if self._fd < 0:
            self.failures += len(records)
            return
        payload = "".join(records).encode()
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            if os.write(self._fd, frame) != len(frame):
                raise OSError(28, "No space left on device")
            if self.sync == "always":
                os.fdatasync(self._fd)
        except OSError as error:
            self._fail(error, len(records))
            return
        self._size += len(frame)

    def _fail(self, error: OSError, records: int) -> None:
        self.failures += records
        self.error = error
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.ftruncate(fd, self._size)  # no frame may follow a torn one
            except OSError:
                pass
            finally:
                os.close(fd)

    def rotate(self) -> tuple[int, int]:
        """Begin the next segment; the closed one's number and its descriptor, -1 where it is incomplete.

        The caller hands the descriptor to `settle`.
        """
        closed, fd = self.number, self._fd
        self.begin(closed + 1)
        return closed, fd

    def begin(self, number: int) -> None:
        """Write to a new segment from now on."""
        self.number = number
        self._fd = -1
        path = self._path(number)
        header = self._header(number)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)
            try:
                if os.write(fd, header) != len(header):
                    raise OSError(28, "No space left on device")
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            self.error = error
            return
        self._fd, self._size, self.error = fd, len(header), None

    def settle(self, fd: int) -> None:
        """Close a rotated segment; as configured, only once it is on the disk. For a thread."""
        try:
            if self.sync != "never":
                os.fdatasync(fd)
        except OSError as error:
            self.error = error
        finally:
            os.close(fd)

    def rewrite(self, first: int, number: int, deltas: Iterable[tuple[Counter, int]]) -> None:
        """Replace the segments first..number by one of totals. For a thread; raises OSError."""
        fresh = self.folder / f".{number}.new"
        with fresh.open("wb") as file:
            file.write(self._header(first))
            for records in _batches(deltas):
                payload = "".join(records).encode()
                file.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path(number))
        self._delete(first, number)

    def delete(self, upto: int) -> None:
        """Delete the segments that are stored. For a thread; raises OSError."""
        self._delete(0, upto + 1)

    def _delete(self, first: int, before: int) -> None:
        for number in self.numbers():
            if first <= number < before:
                self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the open segment, and remove it where it holds nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        empty = self._size == len(self._header(self.number))
        self.settle(fd)
        if empty:
            self._path(self.number).unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes in the open segment."""
        return self._size

    def _header(self, first: int) -> bytes:
        return f"{MAGIC} {VERSION} {self.node} {first}\n".encode()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.segment"

    # -- reading -------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """The numbers of the segments that are there, ascending."""
        found = [_FILE.fullmatch(name) for name in os.listdir(self.folder)]
        return sorted(int(match[1]) for match in found if match)

    def recover(self) -> list[Recovered]:
        """Every segment that counts, oldest first; those that `rewrite` left behind are deleted.

        Raises JournalError for a segment that is not ours to understand, before anything is deleted.
        """
        segments = [self.read(number) for number in self.numbers()]
        for segment in segments:
            self._delete(segment.first, segment.number)
        left = set(self.numbers())
        return [segment for segment in segments if segment.number in left]

    def read(self, number: int) -> Recovered:
        """One segment. Raises JournalError; OSError."""
        path = self._path(number)
        data = path.read_bytes()
        header = _HEADER.match(data)
        if header is None:
            if len(data) < 64 and (self._header(number).startswith(data) or MAGIC.encode().startswith(data[:18])):
                return Recovered(number, number, self.node, [], len(data))  # died while the header was written
            raise JournalError(f"{path}: not a journal of ratelimitd; move it away to start without it")
        if int(header[1]) != VERSION:
            raise JournalError(f"{path}: format {int(header[1])}; this ratelimitd reads format {VERSION}")
        end, payloads = _frames(data, header.end())
        records = b"".join(payloads).decode().split("\n")
        records.pop()
        return Recovered(number, int(header[3]), header[2].decode(), records, len(data) - end)


def _frames(data: bytes, position: int) -> tuple[int, list[bytes]]:
    """The payloads of the whole frames from a position on, and where the last of them ends."""
    payloads: list[bytes] = []
    unpack, crc32, head, size = _FRAME.unpack_from, zlib.crc32, _FRAME.size, len(data)
    while position + head <= size:
        length, crc = unpack(data, position)
        end = position + head + length
        payload = data[position + head : end]
        if length == 0 or end > size or crc32(payload) != crc:
            break
        payloads.append(payload)
        position = end
    return position, payloads


def _batches(deltas: Iterable[tuple[Counter, int]], size: int = 1000) -> Iterator[list[str]]:
    batch: list[str] = []
    for counter, recipients in deltas:
        batch.append(f"T\0\0{recipients}\0{counter.table.limit.name}\0{counter.expiry}\0{counter.key}\n")
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
