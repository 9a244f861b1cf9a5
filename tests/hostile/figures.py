"""What a process takes of its machine."""

import os
import re
from pathlib import Path

MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> int:
    """Its memory, in bytes."""
    return _memory(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """The most memory that it ever had, in bytes."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+([0-9]+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    """How many files it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_s(pid: int) -> float:
    """The CPU time it has taken, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
