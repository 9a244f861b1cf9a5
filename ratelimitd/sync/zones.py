"""Whether the nodes of a database agree on when windows end. Counts that they do not agree on still add up, but resets
are not when an administrator expects them."""

from ratelimitd.core.policy import Policy
from ratelimitd.stores import ZoneWindow
from ratelimitd.stores.link import UNAVAILABLE, StoreLink


class Zones:
    """Records this node's windows and looks at the others': `differing` has a text for each that ends otherwise."""

    def __init__(self, link: StoreLink, policy: Policy) -> None:
        self.differing: list[str] = []
        self._link = link
        self._policy = policy
        self._recorded: list[ZoneWindow] = []

    async def compare(self, now: int) -> None:
        """Record, look, and log each difference once. Never raises."""
        periods = [(meter.limit.name, meter.limit.period) for meter in self._policy.kept if not meter.limit.sliding]
        mine = [ZoneWindow(name, period.timezone, period.end(now)) for name, period in periods]
        try:
            found = await self._link.store.compare(mine, self._gone(mine))
        except UNAVAILABLE:
            return  # the next flush says so
        self._recorded = mine
        self.differing = []
        for own in mine:
            for other in found:
                if other.limit == own.limit and own.expiry != other.expiry > now:
                    self.differing.append(f"{own.limit}: {own.timezone} here, {other.timezone} on another node")
                    self._link.say_once(
                        "another node's windows end at another time; set `timezone` and `week_starts` alike on all",
                        limit=own.limit,
                        here=own.timezone,
                        there=other.timezone,
                    )

    async def withdraw(self) -> None:
        """This node ends: what it has recorded is nobody's, unless others go on. Never raises."""
        try:
            await self._link.store.compare((), self._recorded)
        except UNAVAILABLE:
            return

    def _gone(self, mine: list[ZoneWindow]) -> list[ZoneWindow]:
        there = {one[:2] for one in mine}
        return [one for one in self._recorded if one[:2] not in there]
