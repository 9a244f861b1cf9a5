"""Daemons to be ill-treated."""

from tests.daemon.conftest import load_program, make, start

__all__ = ["load_program", "make", "start"]
