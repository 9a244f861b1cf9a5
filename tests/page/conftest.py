"""Daemons and ratelimitctl as the tests of other folders have them."""

from tests.control.conftest import ctl_of
from tests.daemon.conftest import make, start

__all__ = ["ctl_of", "make", "start"]
