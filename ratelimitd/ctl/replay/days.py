"""What was sent on each day of a log, by the configured time zone; days without mail are not kept."""

from datetime import datetime, time, timedelta, tzinfo

from msgspec import Struct


class Totals(Struct, gc=False):
    """What was sent on a day. `refused`: recipients that a limit refused, or would but for `enforce`."""

    messages: int = 0
    recipients: int = 0
    refused: int = 0


class Days:
    """The days of a log; `totals` by ISO date."""

    def __init__(self, zone: tzinfo) -> None:
        self.totals: dict[str, Totals] = {}
        self._zone = zone
        self._from = self._until = 0
        self._day = Totals()

    def of(self, instant: int) -> Totals:
        """The day of an instant, to be added to."""
        if not self._from <= instant < self._until:  # a log is in the order of time: as a rule it is the same day
            date = datetime.fromtimestamp(instant, self._zone).date()
            self._day = self.totals.setdefault(date.isoformat(), Totals())
            midnight = datetime.combine(date, time(), self._zone)
            self._from = min(instant, int(midnight.timestamp()))
            self._until = max(instant + 1, int((midnight + timedelta(days=1)).timestamp()))
        return self._day
