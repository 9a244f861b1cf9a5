"""Logs key plugins that fail or are slow: at most a line a minute for each limit."""

import trio

from ratelimitd.core.limits import KeyHealth, Limit
from ratelimitd.core.policy import Policy
from ratelimitd.log.log import Log

QUIET_S = 60.0


class KeyWatch:
    """Looks at the limits' key plugins. `totals`: what each did wrong since the start, by limit."""

    def __init__(self, policy: Policy, log: Log) -> None:
        self.totals: dict[str, KeyHealth] = {}
        self._policy = policy
        self._log = log
        self._untold: dict[str, KeyHealth] = {}
        self._quiet_until: dict[tuple[str, str], float] = {}

    def look(self) -> None:
        """Count what went wrong since the last look, and log it unless a line was written within the last minute.

        To be called every second, and at the end.
        """
        for meter in self._policy.meters:
            limit = meter.limit
            if limit.health.failures or limit.health.slow:
                since = limit.health.take()
                for kept in (self.totals, self._untold):
                    kept.setdefault(limit.name, KeyHealth()).add(since)
            if limit.name in self._untold:
                self._tell(limit, self._untold[limit.name])

    def _tell(self, limit: Limit, health: KeyHealth) -> None:
        names = {"limit": limit.name, "key": limit.key_name}
        if health.failures and self._may_tell(limit.name, "failures"):
            what = "a key plugin fails, and its limit answers with server.failure_action"
            self._log.error(what, **names, failures=health.failures, reason=health.failure)
            health.failures = 0
        if health.slow and self._may_tell(limit.name, "slow"):
            slowest = f"{health.slowest_s * 1000:.0f} ms"
            self._log.warning(
                "a key plugin is slow, and all mail waits for it", **names, calls=health.slow, slowest=slowest
            )
            health.slow, health.slowest_s = 0, 0.0

    def _may_tell(self, name: str, what: str) -> bool:
        now = trio.current_time()
        if now < self._quiet_until.get((name, what), now):
            return False
        self._quiet_until[name, what] = now + QUIET_S
        return True
