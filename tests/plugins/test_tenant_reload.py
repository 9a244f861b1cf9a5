"""The tenant plugin in a running daemon: a map that was changed is obeyed by a reload, a broken one changes nothing."""

import signal
from pathlib import Path

import pytest

from tests.conftest import open_folder
from tests.daemon.process import Ratelimitd, config
from tests.plugins.distributions import install

SOURCE = Path(__file__).parents[2] / "plugins" / "ratelimitd-key-tenant" / "ratelimitd_key_tenant.py"
ANEW = "the configuration is reloaded"


def map_of(**tenants: list[str]) -> str:
    return "[tenants]\n" + "".join(f"{name} = {members!r}\n" for name, members in tenants.items())


@pytest.mark.real
def test_a_changed_map_is_obeyed_by_a_reload_and_a_broken_one_is_not() -> None:
    with open_folder() as folder:
        install(
            folder / "site",
            "ratelimitd-key-tenant",
            SOURCE.read_text(encoding="utf-8"),
            tenant="ratelimitd_key_tenant:tenant",
        )
        tenants = folder / "tenants.toml"
        tenants.write_text(map_of(acme=["a@example.com", "b@example.com"]))
        text = config(
            keys={"tenant": {"map": str(tenants)}}, limit=[{"key": "tenant", "quota": 2, "action": "450 4.7.1 over"}]
        )
        daemon = Ratelimitd(folder, text, prefix=["/usr/bin/env", f"PYTHONPATH={folder / 'site'}"])
        try:
            daemon.start()
            with daemon.client() as client:
                asked = [client.ask(login) for login in ("a@example.com", "b@example.com", "a@example.com")]
                assert asked == ["DUNNO", "DUNNO", "450 4.7.1 over"]

                tenants.write_text(map_of(acme=["a@example.com"], other=["b@example.com"]))
                daemon.signal(signal.SIGHUP)
                daemon.wait_for_log(ANEW)
                assert client.ask("b@example.com") == "DUNNO"
                assert client.ask("a@example.com") == "450 4.7.1 over"

                tenants.write_text("[tenants")
                daemon.signal(signal.SIGHUP)
                daemon.wait_for_log("tenants.toml")
                assert client.ask("b@example.com") == "DUNNO"
            assert daemon.stop() == 0
            assert daemon.used() == {"acme": 4, "other": 2}
        finally:
            daemon.kill()
