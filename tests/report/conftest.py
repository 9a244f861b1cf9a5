"""Stores of every kind, daemons and ratelimitctl, as the tests of other folders have them."""

from tests.control.conftest import ctl_of
from tests.daemon.conftest import make, start
from tests.stores.conftest import backend, store

__all__ = ["backend", "ctl_of", "make", "start", "store"]
