"""The journal's files: what a segment looks like, and what can be read of one.

A segment is one file, `NUMBER.segment`: a header line, then frames of a mark, a length, a CRC-32 and lines of text.
One frame is one batch of requests. Behind the last one there may be zeros, where a file was laid out. The mark is a
byte that UTF-8 never has, so the next whole frame is found behind bytes that are damaged. What the lines say is known
to records.py alone.
"""

import os
import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from ratelimitd.errors import JournalError

MAGIC = b"ratelimitd-journal"
VERSION = 1
LAST = 10**17
"""No start finds a higher number that is ours: a run numbers on from the highest one, and needs room below 10**18."""
FILE = re.compile(r"(0|[1-9][0-9]{0,17})\.segment")

_LIKE_ONE = re.compile(r"[0-9]+\.segment")

_MARK = b"\xff"
_HEAD = struct.Struct(">cII")
_HEADER = re.compile(MAGIC + rb" %d ([0-9a-f]{1,64}) ([0-9]{1,18})\n" % VERSION)
_TORN_HEADER = re.compile(MAGIC + rb" %d [0-9a-f]*( [0-9]*)?" % VERSION)
_LONGEST_HEADER = 200
_VERSION = re.compile(MAGIC + rb" ([0-9]+)[ \n]")


@dataclass(slots=True)
class Recovered:
    """What a segment's file says: it stands for those from `first` to `number` of the run `node`.

    `records` are without their LFs. `torn` counts the bytes of a last frame that was not written to its end, `damaged`
    those that cannot be read for another reason.
    """

    number: int
    first: int
    node: str
    records: list[str] = field(default_factory=list)
    torn: int = 0
    damaged: int = 0


def numbers(folder: Path) -> list[int]:
    """The numbers of the segments in a folder, ascending. Raises OSError."""
    found = [FILE.fullmatch(name) for name in os.listdir(folder)]
    return sorted(int(match[1]) for match in found if match)


def check_names(folder: Path) -> None:
    """Raise JournalError for a file whose name is nearly a segment's: no run has made it. Raises OSError."""
    for name in sorted(os.listdir(folder)):
        if _LIKE_ONE.fullmatch(name) and not ((match := FILE.fullmatch(name)) and int(match[1]) <= LAST):
            raise JournalError(f"{folder / name}: no number of a segment; move it away to start without it")


def beginning(path: Path) -> str:
    """The first character of the first record; "" where there is none. Raises OSError."""
    with path.open("rb") as file:
        header = _HEADER.match(file.readline(_LONGEST_HEADER))
        return file.read(_HEAD.size + 1)[_HEAD.size :].decode("ascii", "replace") if header else ""


def header(node: str, first: int) -> bytes:
    """The header of a segment that replaces those from `first` on."""
    return b"%s %d %s %d\n" % (MAGIC, VERSION, node.encode(), first)


def frame(records: str) -> bytes:
    """A batch of records, each with its LF, as it is written."""
    payload = records.encode()
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def read(path: Path) -> Recovered:
    """One segment's file. Raises JournalError for a file that is foreign or of another version; OSError."""
    whole = path.read_bytes()
    data = whole.rstrip(b"\0")  # a frame ends in LF
    match = FILE.fullmatch(path.name)
    assert match is not None
    number = int(match[1])
    found = _HEADER.match(data)
    if found is None:
        _check_torn_header(path, data)
        return Recovered(number, number, "", torn=len(whole))
    payloads, gaps = _frames(data, found.end())
    records = b"".join(payloads).decode().split("\n")
    records.pop()
    recovered = Recovered(number, int(found[2]), found[1].decode(), records)
    for begin, end in gaps:
        if end == len(data) and _is_torn(data, begin):
            recovered.torn = len(whole) - begin
        else:
            recovered.damaged += end - begin
    return recovered


def _check_torn_header(path: Path, data: bytes) -> None:
    """Accept what is left of a segment that had just been begun; raise JournalError for anything else."""
    version = _VERSION.match(data)
    if version is not None and int(version[1]) != VERSION:
        raise JournalError(f"{path}: format {int(version[1])}; this ratelimitd reads format {VERSION}")
    begun = header("", 0)[: len(MAGIC) + 3].startswith(data) or _TORN_HEADER.fullmatch(data)
    if not begun and data.strip(b"\0"):  # zeros are a power cut before the first fsync
        raise JournalError(f"{path}: not a journal of ratelimitd; move it away to start without it")


def _frames(data: bytes, position: int) -> tuple[list[bytes], list[tuple[int, int]]]:
    """The payloads of the whole frames from a position on, and the gaps between them that cannot be read."""
    payloads: list[bytes] = []
    gaps: list[tuple[int, int]] = []
    gap = -1
    while 0 <= position < len(data):
        end = _frame_end(data, position)
        if end:
            if gap >= 0:
                gaps.append((gap, position))
                gap = -1
            payloads.append(data[position + _HEAD.size : end])
            position = end
        else:
            gap = gap if gap >= 0 else position
            position = data.find(_MARK, position + 1)
    if gap >= 0:
        gaps.append((gap, len(data)))
    return payloads, gaps


def _frame_end(data: bytes, position: int) -> int:
    """Where the whole frame at a position ends; 0: there is none."""
    if position + _HEAD.size > len(data):
        return 0
    mark, length, crc = _HEAD.unpack_from(data, position)
    begin = position + _HEAD.size
    end: int = begin + length
    if mark != _MARK or not length or end > len(data):
        return 0
    payload = data[begin:end]
    return end if zlib.crc32(payload) == crc and _is_text(payload) else 0


def _is_text(payload: bytes) -> bool:
    """Whether it can be records. The CRC-32 is not enough: in a block of one bits, it fits."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return payload.endswith(b"\n")


def _is_torn(data: bytes, begin: int) -> bool:
    """Whether the file's end is a frame that was not written to its end, or was never on the disk."""
    rest = len(data) - begin
    if rest < _HEAD.size or not data[begin:].strip(b"\0"):
        return True
    mark, length, _ = _HEAD.unpack_from(data, begin)
    return bool(mark == _MARK and length + _HEAD.size > rest)
