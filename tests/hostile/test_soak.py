"""The short form of the soak; the long one is `python -m tests.hostile.soak 1200`."""

from pathlib import Path

import pytest

from tests.hostile.soak import Soak
from tests.instances.mariadb import MariaDB
from tests.instances.postfix import Postfix

pytestmark = pytest.mark.real


def test_mail_flows_through_reloads_restarts_and_rotations_and_every_recipient_is_stored(
    folder: Path, postfix: Postfix, mariadb: MariaDB
) -> None:
    soak = Soak(folder, postfix, mariadb, 8)
    try:
        figures = soak.run()
    finally:
        soak.daemon.kill()
        mariadb.sql("DROP DATABASE soak; DROP USER soak@'%'")
    assert figures.failures == []
    assert figures.errors == []
    assert figures.done["restarts"] >= 1
    assert figures.done["rotations"] >= 1
    assert figures.stored == figures.accepted
    assert figures.done["log lines of requests"] == sum(figures.accepted.values())
