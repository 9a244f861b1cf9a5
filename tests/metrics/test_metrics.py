"""The metrics of a running daemon: valid, true, and those that the dashboard and the alerts ask for."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ratelimitd.config import read as configuration
from ratelimitd.config import values
from ratelimitd.errors import ConfigError
from tests.daemon.process import Ratelimitd, config
from tests.instances.ports import free_port
from tests.instances.waiting import wait_until

CONTRIB = Path(__file__).parents[2] / "contrib"
NAME = re.compile(r"\bratelimitd_[a-z_]+\b")


class Scraped(Ratelimitd):
    """A daemon with metrics."""

    metrics_port = 0

    def page(self, path: str = "/metrics", accept: str = "") -> tuple[str, str]:
        """A page, and its content type."""
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        with closing(urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}))) as answer:
            return answer.read().decode(), answer.headers["Content-Type"]

    def samples(self) -> dict[str, float]:
        """Every sample, as `name{label=value,...}`."""
        return {
            f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}".replace("{}", ""): s.value
            for family in parse_text(self.page()[0])
            for s in family.samples
        }


@contextmanager
def running(folder: Path, top_accounts: int = 0, **meters: Any) -> Iterator[Scraped]:
    port = free_port()
    metrics = {"listen": f"127.0.0.1:{port}", "top_accounts": top_accounts}
    daemon = Scraped(folder, config(metrics=metrics, **meters))
    daemon.metrics_port = port
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


LIMITS = [{"name": "own", "quota": 3, "period": "monthly"}, {"name": "all", "key": "domain", "period": "monthly"}]


@pytest.mark.real
def test_the_page_is_valid_in_both_formats(folder: Path) -> None:
    with running(folder, limit=LIMITS, top_accounts=3) as daemon, daemon.client() as client:
        client.ask('quo"te\\@example.com')
        for accept, parse, kind in (
            ("", parse_text, "text/plain"),
            ("application/openmetrics-text; version=1.0.0", parse_openmetrics, "application/openmetrics-text"),
        ):
            page, content_type = daemon.page(accept=accept)
            assert content_type.startswith(kind)
            families: list[Metric] = list(parse(page))
            assert len(families) > 25
            for family in families:
                assert family.name.startswith("ratelimitd_")
                assert family.documentation
                assert family.type in ("counter", "gauge", "histogram")
            keys = [s.labels["key"] for f in families if f.name == "ratelimitd_account_used" for s in f.samples]
            assert 'quo"te\\@example.com' in keys


@pytest.mark.real
def test_the_figures_are_those_of_what_was_sent(folder: Path) -> None:
    with running(folder, limit=LIMITS, store={"flush_interval_s": 3600}) as daemon:
        with daemon.client() as client:
            for n in range(5):
                client.ask("alice@example.com", instance=f"{n}.a")
            client.ask("bob@example.com")
            client.ask("")
            seen = daemon.samples()
        assert seen["ratelimitd_requests_total"] == 7
        assert seen["ratelimitd_decisions_total{limit=own,status=INSERT}"] == 2
        assert seen["ratelimitd_decisions_total{limit=own,status=UPDATE}"] == 2
        assert seen["ratelimitd_decisions_total{limit=own,status=OVER_QUOTA}"] == 2
        assert seen["ratelimitd_accounts{limit=own}"] == 2
        assert seen["ratelimitd_accounts{limit=all}"] == 1
        assert seen["ratelimitd_pending_deltas"] == 3
        assert seen["ratelimitd_request_duration_seconds_count"] == 7
        assert seen["ratelimitd_request_duration_seconds_bucket{le=+Inf}"] == 7
        assert seen["ratelimitd_connections"] == 1
        assert seen["ratelimitd_store_up"] == 1
        assert seen["ratelimitd_journal_bytes"] > 0
        assert not any(name.startswith("ratelimitd_account_") for name in seen)


@pytest.mark.real
def test_the_accounts_that_use_most_are_shown_where_that_is_asked_for(folder: Path) -> None:
    with running(folder, limit=[{"period": "monthly"}], top_accounts=2) as daemon, daemon.client() as client:
        for n in range(1, 5):
            for _ in range(n):
                client.ask(f"{n}@example.com")
        seen = {name: value for name, value in daemon.samples().items() if name.startswith("ratelimitd_account_")}
    assert seen == {
        "ratelimitd_account_used{key=4@example.com,limit=default}": 4,
        "ratelimitd_account_used{key=3@example.com,limit=default}": 3,
        "ratelimitd_account_quota{key=4@example.com,limit=default}": 1000,
        "ratelimitd_account_quota{key=3@example.com,limit=default}": 1000,
    }


@pytest.mark.real
def test_healthz_says_what_is_away_and_is_well_while_the_daemon_decides(folder: Path) -> None:
    store = {"backend": "mysql", "host": "127.0.0.1", "port": free_port(), "flush_interval_s": 0.1}
    with running(folder, store=store) as daemon:
        page, content_type = daemon.page("/healthz")
        assert content_type == "application/json"
        assert json.loads(page) == {"status": "degraded", "store": False, "journal": True}
        wait_until(lambda: daemon.samples()["ratelimitd_store_failures_total"] >= 1, "a failure that is counted")
        assert daemon.samples()["ratelimitd_store_up"] == 0
    with running(folder) as daemon:
        assert json.loads(daemon.page("/healthz")[0]) == {"status": "ok", "store": True, "journal": True}


@pytest.mark.real
def test_dashboard_and_alerts_ask_for_metrics_that_there_are(folder: Path) -> None:
    with running(folder, top_accounts=1) as daemon, daemon.client() as client:
        client.ask()
        families = list(parse_text(daemon.page()[0]))
    exist = {sample.name for family in families for sample in family.samples}
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    dashboard = json.loads((CONTRIB / "grafana" / "ratelimitd.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [v["query"]["query"] for v in dashboard["templating"]["list"] if isinstance(v["query"], dict)]
    rules = (CONTRIB / "prometheus" / "ratelimitd.rules.yml").read_text()
    alerts = re.findall(r"^ *expr: (.*)$", rules, re.M)
    assert len(queries) > 15
    assert len(alerts) == rules.count("- alert:") > 5
    asked = {name for text in [*queries, *alerts] for name in NAME.findall(text)}
    assert asked - exist == set()
    grouped = {
        label.strip()
        for text in [*queries, *alerts]
        for by in re.findall(r"by \(([^)]*)\)", text)
        for label in by.split(",")
    }
    assert grouped - labels <= {"instance", "job"}


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", ":9132", "127.0.0.1:99999"])
def test_a_wrong_address_is_an_error_that_names_its_place(tmp_path: Path, listen: str) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(config(metrics={"listen": listen}))
    with pytest.raises(ConfigError, match=r"metrics\.listen"):
        configuration.read(file)


def test_without_prometheus_client_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(config(metrics={"listen": "127.0.0.1:9132"}))
    monkeypatch.setattr(values, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'bin/pip install "ratelimitd\[metrics\]"'):
        configuration.read(file)


@pytest.mark.real
def test_a_port_that_is_taken_is_one_line_that_names_the_setting(folder: Path) -> None:
    with running(folder) as daemon:
        other = folder / "other"
        other.mkdir()
        second = Ratelimitd(other, config(metrics={"listen": f"127.0.0.1:{daemon.metrics_port}"}))
        assert second.spawn().wait() == 75
        assert f"metrics.listen: 127.0.0.1:{daemon.metrics_port}: already in use" in second.output()
