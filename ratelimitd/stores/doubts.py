"""Which is at fault where the database refuses records: the records, or the table.

A trigger may fail with any error, a missing table among them, and for one account alone. The others must be stored all
the same; but where none is taken, it may be the table: somebody has added a column that nobody fills, say. Then other
accounts are tried, and if none of these is taken either, no record is set aside: somebody has to repair something.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from ratelimitd.errors import TableRefuses

MANY = 250
"""So many records are tried, at most, until one is taken."""
OTHERS = 5
"""So many accounts that the table has are tried."""
NOBODY = "nobody@ratelimitd.invalid"
"""The account that is tried last; nothing of it stays. RFC 6761 keeps the domain from everybody."""

T = TypeVar("T")


class Doubts(Generic[T]):
    """Of one flush and one table, `of`: `took` and `doubt` note what became of records, `decide` what became of others.

    `there_are`: records failed, and none was taken; `are_many`: so many that no more should be tried before `decide`.
    `sound`: statements that need not be looked at again, where thousands of records fail.
    """

    def __init__(self, of: str = "the table") -> None:
        self._of = of
        self.sound: set[str] = set()
        self._taken = False
        self._refused: dict[tuple[str, str], tuple[T, Exception]] = {}

    def took(self) -> None:
        """Note that a record was taken: each one that fails is at fault itself."""
        self._taken = True

    def doubt(self, account: tuple[str, str], record: T, error: Exception) -> None:
        """Note that a record of an account (limit, key) failed."""
        self._refused[account] = record, error

    @property
    def there_are(self) -> bool:
        """As above."""
        return bool(self._refused) and not self._taken

    @property
    def are_many(self) -> bool:
        """As above."""
        return len(self._refused) >= MANY and not self._taken

    @property
    def example(self) -> T:
        """One of the records."""
        return next(iter(self._refused.values()))[0]

    def others(self, there: Iterable[str]) -> list[str]:
        """The keys to be tried under the limit of `example`, of those that the database has, and one more."""
        limit = next(iter(self._refused))[0]
        keys = dict.fromkeys(key for key in there if (limit, key) not in self._refused)
        return [*islice(keys, OTHERS), NOBODY]

    def decide(self, *, takes_one: bool) -> None:
        """Note whether the table takes one of the others. Raises TableRefuses where it does not."""
        if not takes_one:
            error = next(iter(self._refused.values()))[1]
            raise TableRefuses(f"{self._of} takes no record: {error}") from error
        self.took()

    def blamed(self) -> list[tuple[T, Exception]]:
        """The records that are at fault themselves, as far as that is known; each is told once."""
        if not self._taken:
            return []
        refused, self._refused = self._refused, {}
        return list(refused.values())
