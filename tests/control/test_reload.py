"""SIGHUP and `ratelimitctl reload`: a new configuration under load, whole or not at all."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from ratelimitd.settings import LimitSettings, NotifySettings, Section, Settings, needing_a_restart
from tests.control.conftest import Ctl, Start
from tests.control.load import Load
from tests.daemon.client import PolicyClient
from tests.daemon.process import Ratelimitd, config
from tests.instances.ports import free_port

UnderLoad = Callable[[Ratelimitd], Load]
ALICE = "alice@example.com"
RELOADED = "the configuration is reloaded"


def rewrite(daemon: Ratelimitd, **tables: Any) -> None:
    """Give the daemon another file; it goes on listening where it does unless `server` says otherwise."""
    server = {"listen": daemon.listen, **tables.pop("server", {})}
    daemon.file.write_text(config(server=server, **tables))


def reload(daemon: Ratelimitd, **tables: Any) -> None:
    """The same, obeyed by SIGHUP."""
    rewrite(daemon, **tables)
    times = sum(RELOADED in line for line in daemon.log())
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(RELOADED, times + 1)


def test_a_limit_is_changed_under_load_and_nothing_is_lost(start: Start, under_load: UnderLoad, ctl_of: Ctl) -> None:
    store = {"flush_interval_s": 0.1}
    daemon = start(limit=[{"quota": 1_000_000}], store=store)
    load = under_load(daemon)
    for quota in (1, 2_000_000, 2, 3_000_000):
        rewrite(daemon, limit=[{"quota": quota}], store=store)
        ran = ctl_of(daemon, "reload", "--json")
        assert (ran.status, ran.json["needs_start"]) == (0, [])
        before = load.replies["450"]
        load.go_on(60)
        assert (load.replies["450"] > before + 10) == (quota < 3)
        assert ctl_of(daemon, "show", "load1@example.com", "--json").json["limits"][0]["quota"] == quota
    load.stop()
    assert ctl_of(daemon, "status", "--json").json["errors"] == 0
    daemon.stop()
    assert daemon.used() == load.answered


@pytest.mark.parametrize("text", ["[[limit]\n", "[[limit]]\nquota = -1\n", '[[limit]]\nquota=1\nkey="nokey"\n', ""])
def test_a_broken_file_changes_nothing_and_is_said_in_one_line(
    start: Start, under_load: UnderLoad, ctl_of: Ctl, text: str
) -> None:
    daemon = start(limit=[{"quota": 1_000_000}])
    load = under_load(daemon)
    right = daemon.file.read_text()
    daemon.file.write_text(text)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("the configuration is not applied; nothing is changed: reason=")
    load.go_on()
    assert set(load.replies) == {"DUNNO"}
    assert sum("not applied" in line for line in daemon.log()) == 1
    daemon.file.write_text(right)
    assert ctl_of(daemon, "reload").status == 0


def test_ratelimitctl_is_told_what_is_wrong(start: Start, ctl_of: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = start()
    listen = f"127.0.0.1:{free_port()}"
    rewrite(daemon, server={"listen": [*daemon.listen, listen]}, log={"file": "no/such/folder/log"})
    ran = ctl_of(daemon, "reload")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "log.file" in ran.err
    with pytest.raises(ConnectionRefusedError):
        PolicyClient(("127.0.0.1", int(listen.rpartition(":")[2])))


def test_counts_stay_with_their_limit_and_new_limits_begin_at_none(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"name": "daily", "quota": 100}, {"name": "gone", "quota": 100}])
    with daemon.client() as client:
        for _ in range(3):
            client.ask(ALICE)
        reload(daemon, limit=[{"name": "new", "quota": 100}, {"name": "daily", "quota": 4, "period": "weekly"}])
        assert [client.ask(ALICE)[:3] for _ in range(2)] == ["DUN", "450"]
    used = {view["limit"]: view["used"] for view in ctl_of(daemon, "show", ALICE, "--json").json["limits"]}
    assert used == {"new": 1, "daily": 5}  # what one refuses is not charged to the other
    daemon.stop()
    assert {(row.limit, row.used) for row in daemon.rows()} == {("new", 1), ("daily", 5), ("gone", 3)}


def test_quotas_that_the_database_gave_are_kept(start: Start, ctl_of: Ctl) -> None:
    daemon = start(limit=[{"quota": 10}])
    ctl_of(daemon, "set", "granted@example.com", "--quota", "20")
    ctl_of(daemon, "set", "persistent@example.com", "--quota", "30", "--persist")
    with daemon.client() as client:
        for login in ("granted", "persistent", "other", "named"):
            client.ask(f"{login}@example.com")
    reload(daemon, limit=[{"quota": 11, "quotas": {"named@example.com": 12}}])
    quotas = [
        ctl_of(daemon, "show", f"{login}@example.com", "--json").json["limits"][0]["quota"]
        for login in ("granted", "persistent", "other", "named")
    ]
    assert quotas == [20, 30, 11, 12]


def test_addresses_come_and_go_and_connections_stay(start: Start, ctl_of: Ctl) -> None:
    old, kept, new = (f"127.0.0.1:{free_port()}" for _ in range(3))
    daemon = start(server={"listen": [old, kept]})
    unix = f"unix:{daemon.folder / 'policy.sock'}"
    ports = {address: ("127.0.0.1", int(address.rpartition(":")[2])) for address in (old, kept, new)}
    with PolicyClient(ports[old]) as before:
        assert before.ask() == "DUNNO"
        reload(daemon, server={"listen": [kept, new, unix]})
        assert before.ask() == "DUNNO"
        for address in (ports[kept], ports[new], daemon.folder / "policy.sock"):
            with PolicyClient(address) as client:
                assert client.ask() == "DUNNO"
        with pytest.raises(ConnectionRefusedError):
            PolicyClient(ports[old])
        assert ctl_of(daemon, "status", "--json").json["listen"] == [kept, new, unix]
        reload(daemon, server={"listen": [kept]})
        assert not (daemon.folder / "policy.sock").exists()
        assert before.ask() == "DUNNO"


def test_an_address_in_use_is_refused_and_the_others_are_not_opened(start: Start, ctl_of: Ctl) -> None:
    daemon, new = start(), f"127.0.0.1:{free_port()}"
    with PolicyClient(daemon.addresses[0]) as client:
        taken = f"127.0.0.1:{client.socket.getsockname()[1]}"
        rewrite(daemon, server={"listen": [new, taken]})
        ran = ctl_of(daemon, "reload")
        assert (ran.status, "server.listen" in ran.err) == (2, True)
        assert client.ask() == "DUNNO"
    with pytest.raises(ConnectionRefusedError):
        PolicyClient(("127.0.0.1", int(new.rpartition(":")[2])))


def test_log_level_format_and_file_change_and_the_old_file_gets_no_more(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    with daemon.client() as client:
        client.ask(ALICE)
        old = daemon.log_file
        rewrite(daemon, log={"file": "other", "format": "json", "level": "warning"}, limit=[{"quota": 2}])
        assert ctl_of(daemon, "reload").status == 0
        daemon.log_file = daemon.folder / "other"
        for _ in range(3):
            client.ask(ALICE)
        daemon.wait_for_log('"status": "OVER_QUOTA"')
    assert all("OVER_QUOTA" in line or '"level": "warning"' in line for line in daemon.log())
    assert "OVER_QUOTA" not in old.read_text()


def test_a_renamed_log_file_is_begun_anew_whatever_the_configuration(start: Start) -> None:
    daemon = start()
    daemon.log_file.rename(daemon.folder / "log.1")
    daemon.file.write_text("broken")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("log files are reopened")
    daemon.wait_for_log("not applied")


def test_clients_bounds_follow(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    with daemon.client() as client, daemon.client() as other:
        reload(
            daemon, server={"max_request_bytes": 2048, "allow": ["192.0.2.0/24"]}, keys={"default_domain": "a.example"}
        )
        assert client.ask("alice") == "DUNNO"
        other.send(b"helo_name=" + b"a" * 3000)
        assert other.at_end()
        with daemon.client() as stranger:
            assert stranger.at_end()
    assert ctl_of(daemon, "show", "alice", "--json").json["limits"][0]["key"] == "alice@a.example"


def test_a_login_that_was_seen_counts_under_the_domains_that_a_reload_names(start: Start, ctl_of: Ctl) -> None:
    limits = [{"quota": 4, "action": "450 4.7.1 {used} of {key}"}]
    daemon = start(limit=limits)
    logins = ["alice@y0.example", "Alice@Y1.example", "alice"]
    with daemon.client() as client:
        for login in [*logins, "alice@a.example"] * 2:
            client.ask(login)
        reload(daemon, keys={"domains": ["A.example", "b.example"], "default_domain": "a.example"}, limit=limits)
        assert [client.ask(login) for login in logins] == ["DUNNO", "DUNNO", "450 4.7.1 5 of alice@a.example"]
        assert client.ask("alice@b.example") == "DUNNO"
        reload(daemon, limit=limits)
        assert client.ask("alice@y0.example") == "DUNNO"
    assert daemon.stop() == 0
    assert daemon.used() == {
        "alice": 2,
        "alice@y0.example": 3,
        "alice@y1.example": 2,
        "alice@a.example": 5,
        "alice@b.example": 1,
    }


def test_an_administrator_s_names_follow_the_domains(start: Start, ctl_of: Ctl) -> None:
    daemon = start(keys={"domains": ["a.example"], "default_domain": "a.example"})
    with daemon.client() as client:
        client.ask("alice@y0.example")
    assert ctl_of(daemon, "set", "alice@y1.example", "--quota", "7").status == 0
    (shown,) = ctl_of(daemon, "show", "alice@y2.example", "--json").json["limits"]
    assert (shown["key"], shown["quota"], shown["used"]) == ("alice@a.example", 7, 1)
    assert ctl_of(daemon, "reset", "alice@").status == 0
    assert ctl_of(daemon, "show", "alice", "--json").json["limits"][0]["used"] == 0


def test_what_only_a_new_start_obeys_is_said(start: Start, ctl_of: Ctl) -> None:
    daemon = start()
    rewrite(daemon, store={"path": "other.sqlite3", "refresh_s": 7}, server={"unix_mode": "0600"})
    ran = ctl_of(daemon, "reload")
    assert (ran.status, ran.out.splitlines()[1:]) == (
        0,
        ["These changed settings need a restart: server.unix_mode store.path"],
    )
    daemon.wait_for_log("changed settings that need a restart: settings=server.unix_mode store.path")
    assert ctl_of(daemon, "reload", "--json").json["needs_start"] == ["server.unix_mode", "store.path"]
    assert not (daemon.state / "other.sqlite3").exists()


def test_an_interval_that_is_shortened_does_not_wait_for_the_long_one(start: Start) -> None:
    daemon = start(store={"flush_interval_s": 3600})
    with daemon.client() as client:
        client.ask(ALICE)
        reload(daemon, store={"flush_interval_s": 0.05})
        client.ask(ALICE)
        from tests.instances.waiting import wait_until

        wait_until(lambda: daemon.used() == {ALICE: 2}, "a flush", 60)


def test_every_setting_but_these_is_applied_by_a_reload() -> None:
    old = Settings(limit=[LimitSettings(quota=1)])
    changed = Settings(limit=[LimitSettings(quota=2)])
    for section in (
        changed,
        changed.server,
        changed.store,
        changed.keys,
        changed.log,
        changed.metrics,
        changed.control,
    ):
        for name in section.__struct_fields__:
            if not isinstance(getattr(section, name), Section | list):
                setattr(section, name, "changed")
    changed.server.listen = changed.server.allow = changed.server.unix_users = ["changed"]
    changed.notify = [NotifySettings()]
    assert set(needing_a_restart(old, changed)) == {
        *("state_dir", "user", "group", "pid_file", "server.unix_mode", "server.unix_group"),
        *(f"store.{name}" for name in ("backend", "path", "host", "port", "unix_socket", "user", "password", "tls_ca")),
        *(
            f"store.{name}"
            for name in ("password_file", "database", "tls_verify_name", "server_public_key", "service", "table")
        ),
        *("store.columns", "metrics.listen", "metrics.top_accounts", "control.socket", "control.mode"),
    }
