"""What reading a segment of the journal must give, whatever is on the disk: every whole frame, and nothing else."""

from ratelimitd.errors import JournalError
from ratelimitd.state.records import ends, remember, windows
from ratelimitd.state.segments import frame, header, read
from tests.core.build import memo
from tests.fuzz.configurations import one_line
from tests.fuzz.scratch import FOLDER

_FILE = FOLDER / "1.segment"


def check(data: bytes) -> None:
    """Read these bytes as a segment, and as what lies between whole frames of one. Raises AssertionError."""
    _read(data)
    _between_frames(data)


def _read(data: bytes) -> None:
    """Whatever it is, it is understood in part, or refused in one line that names the file."""
    _FILE.write_bytes(data)
    try:
        found = read(_FILE)
    except JournalError as error:
        one_line(str(error), _FILE)
        return
    assert found.torn >= 0
    assert found.damaged >= 0
    assert found.torn + found.damaged <= len(data)


def _between_frames(data: bytes) -> None:
    """The pieces of the data, cut at its LFs, between whole frames: no frame is lost, no byte is unaccounted for."""
    pieces = data.split(b"\n")[:8]
    written, records = header("0a1b", 3), []
    for number, piece in enumerate(pieces):
        text = piece.decode("utf-8", "backslashreplace").replace("\0", "")
        record = f"R{number}.{text}\0{text}\0{number + 1}\0daily\0{number + 1}\0{text or 'a'}\n"
        records.append(record)
        written += piece + frame(record)
    _FILE.write_bytes(written)
    found = read(_FILE)
    assert found.records == [record[:-1] for record in records]
    assert (found.node, found.first) == ("0a1b", 3)
    assert found.torn == 0
    assert found.damaged == sum(map(len, pieces))
    for end in ends(found.records):
        recipients, charged = windows(end)
        assert 1 <= recipients <= len(pieces)
        assert len(charged) == 1
    charges = memo()
    remember(found.records, charges)
    assert len(charges) == len(records)
