"""Which is at fault where the database refuses a record for a reason of any kind: the record, or the table.

A trigger may fail with any error, a missing table among them, and for one account alone. The others must be stored all
the same; but where every record fails in this way, none is set aside: somebody has to repair something.
"""

from ratelimitd.errors import NotStored

MANY = 250
"""So many are tried, at most, until one is taken."""


class Doubts:
    """Of one flush: `took` and `doubt` note what became of records, `decide` ends it."""

    def __init__(self) -> None:
        self._taken = False
        self._doubted = 0
        self._error: Exception | None = None

    def took(self) -> None:
        """Note that records were taken: each other one that fails is at fault itself."""
        self._taken = True

    def doubt(self, error: Exception) -> None:
        """Note that a record failed, for a reason that may be the table's.

        Raises NotStored once many did, and none was taken.
        """
        self._doubted += 1
        self._error = error
        if self._doubted >= MANY:
            self.decide()

    def decide(self) -> None:
        """Raise NotStored where records were refused, and none was taken."""
        if self._error is not None and not self._taken:
            raise NotStored(str(self._error)) from self._error
