"""The garbage collector does not walk the dict of the accounts: from Python 3.14 on it would, for 50 ms or more."""

import signal
from pathlib import Path

from tests.daemon.process import Ratelimitd, changed, config

LOOK = """
import gc
from ratelimitd.daemon import daemon, reload

def look(parts):
    walked = {id(found) for found in gc.get_objects()}
    print("walked:", [meter.limit.name for meter in parts.policy.meters if id(meter.counters) in walked], flush=True)

serve, follow = daemon.Daemon._serve, reload.Reloader._follow

async def looking(self, signals):
    look(self.parts)
    await serve(self, signals)

async def following(self):
    await follow(self)
    look(self._parts)

daemon.Daemon._serve, reload.Reloader._follow = looking, following
"""


def test_after_a_start_and_a_reload_the_accounts_are_frozen(folder: Path) -> None:
    daemon = Ratelimitd(folder, config(limit=[{"name": "one"}]), prefix=changed(LOOK))
    try:
        daemon.start()
        daemon.file.write_text(daemon.file.read_text() + '[[limit]]\nname = "two"\nquota = 5\n')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("the configuration is reloaded")
        daemon.stop()
    finally:
        daemon.kill()
    assert daemon.output().splitlines() == ["walked: []", "walked: []"]
