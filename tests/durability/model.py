"""What must be stored, said as simply as it can be said; knows nothing of segments, journals or flushes in doubt."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.durability.node import ZONE

Account = tuple[str, str]


@dataclass
class StoredRow:
    """A row of the database."""

    expiry: int
    used: int
    quota: int
    persist: bool = False


@dataclass
class Model:
    """Charges are answered; later they are stored, whole; a window that is over is never added to.

    A window that ends after the next one is none: what was charged in it is never stored, and a row in it begins again.
    """

    configured: dict[str, int]
    periods: dict[str, str]
    rows: dict[Account, StoredRow] = field(default_factory=dict)
    unstored: dict[tuple[str, str, int], int] = field(default_factory=dict)
    windows: dict[Account, int] = field(default_factory=dict)

    def charge(self, account: Account, recipients: int, now: int) -> int:
        """Charge an account; its use in this window, this charge included."""
        row = self.rows.get(account)
        known = self.windows.get(account, 0), row.expiry if row is not None else 0
        latest = self.latest(account[0], now)
        window = max((window for window in known if now < window <= latest), default=0)
        window = self.windows[account] = window or self._end(self.periods[account[0]], now)
        key = (*account, window)
        self.unstored[key] = self.unstored.get(key, 0) + recipients
        return self.used(account)

    def begin_run(self, now: int) -> None:
        """A daemon starts: it knows what is stored, and what the journal has of the rest."""
        self.windows.clear()
        for limit, key, window in self.unstored:
            self.begin((limit, key), window, now)

    def begin(self, account: Account, window: int, now: int) -> None:
        """The daemon knows the account to be in a window, unless it was in a later one before."""
        known = window, self.windows.get(account, 0)
        self.windows[account] = max((one for one in known if one <= self.latest(account[0], now)), default=0)

    def charge_unknown(self, account: Account, recipients: int, window: int, now: int) -> None:
        """Charge an account in the window that the daemon takes it to be in while the store is away."""
        self.begin(account, window, now)
        key = (*account, window)
        self.unstored[key] = self.unstored.get(key, 0) + recipients

    def used(self, account: Account) -> int:
        """Recipients charged in the window that the account is in."""
        window = self.windows[account]
        row = self.rows.get(account)
        stored = row.used if row is not None and row.expiry == window else 0
        return stored + self.unstored.get((*account, window), 0)

    def store(self, now: int) -> None:
        """All that was charged is stored."""
        for (limit, key, window), recipients in sorted(self.unstored.items()):
            latest = self.latest(limit, now)
            if window > latest:
                continue
            row = self.rows.get((limit, key))
            if row is not None and row.expiry > latest:
                row.quota = row.quota if row.persist else self.configured[limit]
                row.used, row.expiry = recipients, window
            elif row is None:
                self.rows[limit, key] = StoredRow(window, recipients, self.configured[limit])
            elif row.expiry == window:
                row.used += recipients
            elif row.expiry < window:
                row.expiry, row.used = window, recipients
                if not row.persist:
                    row.quota = self.configured[limit]
        self.unstored.clear()

    def latest(self, limit: str, now: int) -> int:
        """The end of the next window."""
        period = self.periods[limit]
        return self._end(period, self._end(period, now))

    @staticmethod
    def _end(period: str, now: int) -> int:
        local = datetime.fromtimestamp(now, ZONE)
        if period == "hourly":  # the zone's offsets are whole hours
            return now - now % 3600 + 3600
        midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), ZONE)
        return int(midnight.timestamp())
