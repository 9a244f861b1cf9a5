"""How many file descriptors there are, and how many of them connections may take."""

import resource

from ratelimitd.errors import StartError

RESERVED = 64
"""For the daemon itself: listeners, journal, database, log, control socket, notices."""
FEWEST = 16
"""Connections without which a daemon is of no use."""


def connections_for(wanted: int) -> int:
    """How many connections the descriptors suffice for, at most `wanted`. The soft limit is raised where it may be.

    Without this, many clients would take the descriptor that the next segment of the journal needs. Raises StartError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < min(wanted, FEWEST) + RESERVED:
        least = FEWEST + RESERVED
        raise StartError(f"the limit of open files (ulimit -n, LimitNOFILE) is {soft}; it must be at least {least}")
    return min(wanted, soft - RESERVED)
