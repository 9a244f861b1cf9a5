"""What the Perl daemon's table is: how it is recognised, the one that it made or one of its forks."""

import re
from collections.abc import Iterator

from ratelimitd.stores.mysql.layout import Layout

_TYPES = {
    "id": r"(big)?int\b.*",
    "sender": r"(var)?(char|binary)\b.*",
    "persist": r"(tiny|small|medium|big)?int\b.*",
    "quota": r"(big)?int\b.*",
    "used": r"(big)?int\b.*",
    "updated": r"timestamp\b.*",
    "expiry": r"(big)?int\b.*",
}
"""The Perl daemon's columns, and what they may be."""

BEGUN = "configured"
"""The column that a migration adds first, in a statement of its own: the table is the Perl daemon's with it, too."""
MIGRATED = "limit_name"
"""The column that only a migrated table has."""


def oddities(found: Layout) -> Iterator[str]:
    """Why it is not the Perl daemon's table."""
    for name, wanted in _TYPES.items():
        kind = found.columns[name].type if name in found.columns else "nothing"
        if not re.fullmatch(wanted, kind):
            yield f"its column {name} is {kind}"
    for name, column in found.columns.items():
        if name not in _TYPES and column.required:
            yield f"it has a column {name} without default"
    if ("sender",) not in found.unique.values():
        yield "its senders are not unique"
