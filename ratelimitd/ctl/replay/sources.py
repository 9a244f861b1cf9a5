"""The files of a log: plain, gzip, xz, bzip2, or standard input; told apart by their first bytes, not by their names.

Bytes and lines; what a line says is not known here. A file that ends early or is damaged gives what can be read of it.
"""

import bz2
import gzip
import io
import lzma
import sys
import time
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from ratelimitd.control.commands import Refused

STDIN = "-"
MAX_LINE = 16_384
"""Bytes of a line; a longer one is no line of a log, and only its beginning is kept."""

_GZIP, _XZ, _BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh"
_READ_BYTES = 1 << 18
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Source:
    """One file, open. `modified`: when it was written last (seconds since 1970)."""

    def __init__(self, name: str) -> None:
        """Raises Refused."""
        self.name = "standard input" if name == STDIN else name
        self.damage = ""  # why it could not be read to its end
        self.size, self.modified = 0, int(time.time())
        try:
            if name == STDIN:
                self._raw = cast("io.BufferedReader", sys.stdin.buffer)
            else:
                path = Path(name)
                self._raw = path.open("rb")
                status = path.stat()
                self.size, self.modified = status.st_size, int(status.st_mtime)
            self._stream = _unpacked(self._raw)
        except OSError as error:
            raise Refused(f"{self.name}: {error.strerror or error}") from error

    @property
    def position(self) -> int:
        """How many bytes of the file have been read; 0 where it has no size."""
        return self._raw.tell() if self.size else 0

    def begins(self, with_: bytes) -> bool:
        """Whether the text begins so; nothing is consumed."""
        return self._from(lambda: self._stream.peek(len(with_))).startswith(with_)

    def lines(self) -> Iterator[list[bytes]]:
        """The lines, some at a time. Those that are too long are longer than MAX_LINE.

        NUL bytes before a line are left out, where they are many: a log that was cut while it was written, or a
        file system that crashed, has a hole there.
        """
        rest = b""
        while data := self._from(lambda: self._stream.read1(_READ_BYTES)):
            lines = (rest + data).split(b"\n")
            rest = lines.pop().lstrip(b"\0")[: MAX_LINE + 1]
            if lines:
                yield lines
        if rest:
            yield [rest]

    def line(self) -> bytes:
        """The next line with its end, or as much of it as MAX_LINE allows; b"" at the end."""
        return self._from(lambda: self._stream.readline(MAX_LINE))

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        return self._from(lambda: self._stream.read(count))

    def close(self) -> None:
        """Close it; standard input stays open."""
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    def _from(self, read: Callable[[], bytes]) -> bytes:
        """What is read; nothing where the file is damaged, nor behind that: a decompressor that failed is of no use."""
        if self.damage:
            return b""
        try:
            return read()
        except _DAMAGE as error:
            self.damage = "ends early" if isinstance(error, EOFError) else f"is damaged: {error}"
            return b""


class _Stream(IO[bytes]):
    """What all of these streams have."""

    @abstractmethod
    def peek(self, count: int = 0, /) -> bytes:
        """The next bytes, and leave them there."""

    @abstractmethod
    def read1(self, count: int = -1, /) -> bytes:
        """Some of the next bytes."""


def _unpacked(raw: io.BufferedReader) -> _Stream:
    magic = raw.peek(len(_XZ))
    if magic.startswith(_GZIP):
        return cast("_Stream", gzip.GzipFile(fileobj=raw))
    if magic.startswith(_BZIP2):
        return cast("_Stream", bz2.BZ2File(raw))
    return cast("_Stream", lzma.LZMAFile(raw) if magic.startswith(_XZ) else raw)
