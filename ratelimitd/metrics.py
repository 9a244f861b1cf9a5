"""The daemon's figures for Prometheus, collected from the parts when somebody asks; nothing is counted twice.

Needs the extra `metrics`. Names and labels are an interface: the dashboard and the alert rules in contrib/ use them.
"""

import time
from collections.abc import Iterator
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ratelimitd import __version__
from ratelimitd.core.counters import Counter
from ratelimitd.core.limits import KeyHealth
from ratelimitd.core.policy import Policy
from ratelimitd.log.keywatch import KeyWatch
from ratelimitd.log.log import Log
from ratelimitd.net.http import Page, as_json
from ratelimitd.notify.notifier import Notifier
from ratelimitd.server.pump import Pump
from ratelimitd.state.journal import Journal
from ratelimitd.sync.schedule import StoreSync
from ratelimitd.sync.walk import most_used
from ratelimitd.text import spell

PREFIX = "ratelimitd_"
F = TypeVar("F", CounterMetricFamily, GaugeMetricFamily)


class Sources(Protocol):
    """The parts of a daemon whose figures are shown."""

    @property
    def policy(self) -> Policy:
        """What decides."""
        ...

    @property
    def pump(self) -> Pump:
        """What serves Postfix."""
        ...

    @property
    def sync(self) -> StoreSync:
        """Memory and store in step."""
        ...

    @property
    def journal(self) -> Journal:
        """Where charges are kept."""
        ...

    @property
    def log(self) -> Log:
        """The log."""
        ...

    @property
    def notifier(self) -> Notifier:
        """Who is notified."""
        ...

    @property
    def keywatch(self) -> KeyWatch:
        """How the key plugins do."""
        ...


class Figures(Collector):
    """A daemon's figures; `metrics` and `healthz` are pages of them."""

    def __init__(self, daemon: Sources, top_accounts: int = 0) -> None:
        self._daemon = daemon
        self._top_accounts = top_accounts
        self._top: list[Counter] = []
        self._started = time.time()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def metrics(self, accept: str = "") -> Page:
        """The page /metrics, in the format that the client accepts."""
        now, meters = int(time.time()), self._daemon.policy.kept if self._top_accounts else ()
        top = [(meter, await most_used(meter, self._top_accounts, now)) for meter in meters]
        self._top = [meter.find(counter.key, now) or counter for meter, counters in top for counter in counters]
        encode, content_type = choose_encoder(accept)
        return Page(encode(self._registry), content_type)

    async def healthz(self, _: str = "") -> Page:
        """The page /healthz: 200 while the daemon decides, which it does also without store and journal."""
        up = {"store": self._daemon.sync.link.up, "journal": self._daemon.journal.error is None}
        return as_json({"status": "ok" if all(up.values()) else "degraded", **up})

    def failed(self, error: Exception) -> None:
        """Log that a page could not be made."""
        self._daemon.log.error("a page of metrics cannot be shown", reason=repr(error))

    def collect(self) -> Iterator[Metric]:
        """Every figure."""
        yield _gauge("build_info", "The version that runs.", 1, version=__version__)
        yield _gauge("start_time_seconds", "When the daemon started, in seconds since 1970.", self._started)
        yield from self._requests()
        yield from self._accounts()
        yield from self._store()
        yield from self._losses()
        yield from self._notices()
        yield from self._plugins()
        if self._top_accounts:
            yield from self._top_figures()

    def _requests(self) -> Iterator[Metric]:
        pump = self._daemon.pump
        connections = pump.connections
        yield _counter("requests", "Requests that Postfix sent.", pump.requests)
        yield _counter("request_errors", "Requests answered with the failure action.", pump.errors)
        decisions = _family(
            CounterMetricFamily, "decisions", "Decisions, by the limit that decided.", "limit", "status"
        )
        for meter in self._daemon.policy.meters:
            for status, count in meter.decisions.items():
                decisions.add_metric([meter.limit.name, status], count)
        yield decisions
        latency = pump.latency
        yield HistogramMetricFamily(
            PREFIX + "request_duration_seconds",
            "From a request's arrival to its reply, lookups included.",
            buckets=list(latency.cumulative()),
            sum_value=latency.total_s,
        )
        yield _gauge("connections", "Connections that are open.", len(connections.open))
        yield _gauge("parked_requests", "Requests that wait for the lookup of their account.", len(pump.parked))
        closed = _family(CounterMetricFamily, "connections_closed", "Connections ended by the daemon.", "reason")
        closed.add_metric(["not_allowed"], connections.refused_peers)
        closed.add_metric(["timeout"], connections.timeouts)
        closed.add_metric(["too_long"], pump.too_long)
        closed.add_metric(["not_postfix"], pump.not_postfix)
        closed.add_metric(["gone"], connections.failed_accepts)
        yield closed
        yield _counter("accept_pauses", "Times that accepting connections was interrupted.", connections.pauses)

    def _accounts(self) -> Iterator[Metric]:
        policy = self._daemon.policy
        accounts = _family(GaugeMetricFamily, "accounts", "Accounts in memory.", "limit")
        for meter in policy.kept:
            accounts.add_metric([meter.limit.name], len(meter.counters))
        yield accounts
        yield _gauge("transactions", "Transactions whose charges are remembered.", len(policy.memo))
        yield _counter("transactions_forgotten", "Transactions that a bound made forgotten.", policy.memo.forgotten)
        yield _counter(
            "accounts_evicted", "Accounts evicted from memory beyond max_accounts.", self._daemon.sync.evicted
        )
        yield _counter("lookups_held", "Lookups that waited for room in memory.", self._daemon.sync.held)
        yield _gauge("pending_deltas", "Counts that are not stored yet.", len(policy.pending))
        yield _gauge("pending_segments", "Journal segments that wait for the store.", len(policy.pending.closed))

    def _store(self) -> Iterator[Metric]:
        sync = self._daemon.sync
        yield _gauge("store_up", "Whether the store answered the last time.", float(sync.link.up))
        yield _counter("store_failures", "Operations that the store did not do.", sync.link.failures)
        yield _counter("flushes", "Flushes that stored counts.", sync.flusher.count)
        yield _gauge("flush_duration_seconds", "How long the last flush took.", sync.flusher.seconds)
        yield _counter("rejected_records", "Counts that the store refused; they are set aside.", sync.flusher.rejected)

    def _losses(self) -> Iterator[Metric]:
        journal = self._daemon.journal
        yield _gauge("journal_bytes", "Size of the journal's open segment.", journal.size)
        yield _gauge("journal_up", "Whether the journal can be written.", float(journal.error is None))
        yield _counter("journal_failures", "Charges that are not in the journal.", journal.failures)
        yield _counter("log_lines_dropped", "Log lines that no reader took.", self._daemon.log.dropped)
        left_out = self._daemon.pump.connections.quiet.left_out
        yield _counter("log_lines_left_out", "Warnings about clients, of which there were too many.", left_out)

    def _notices(self) -> Iterator[Metric]:
        notifier = self._daemon.notifier
        notices = _family(CounterMetricFamily, "notices", "Notices, by how they ended.", "result")
        notices.add_metric(["delivered"], notifier.delivered)
        notices.add_metric(["failed"], notifier.failed)
        notices.add_metric(["dropped"], notifier.dropped + notifier.watch.dropped)
        yield notices
        yield _gauge("notices_waiting", "Deliveries of notices that are not over.", notifier.waiting)

    def _plugins(self) -> Iterator[Metric]:
        failures = _family(CounterMetricFamily, "key_failures", "Requests that a limit's key plugin failed.", "limit")
        slow = _family(CounterMetricFamily, "key_slow_calls", "Calls of a limit's key plugin over 10 ms.", "limit")
        watch = self._daemon.keywatch
        watch.look()
        for meter in self._daemon.policy.meters:
            health = watch.totals.get(meter.limit.name, KeyHealth())
            failures.add_metric([meter.limit.name], health.failures)
            slow.add_metric([meter.limit.name], health.slow)
        yield failures
        yield slow

    def _top_figures(self) -> Iterator[Metric]:
        used = _family(GaugeMetricFamily, "account_used", "Recipients of the accounts that use most.", "limit", "key")
        quota = _family(GaugeMetricFamily, "account_quota", "Their quotas; 0 is unlimited.", "limit", "key")
        for counter in self._top:
            labels = [counter.meter.limit.name, spell(counter.key)]
            used.add_metric(labels, counter.used)
            quota.add_metric(labels, counter.quota)
        yield used
        yield quota


def _family(kind: type[F], name: str, text: str, *labels: str) -> F:
    return kind(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)
