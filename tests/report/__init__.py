"""Tests of `ratelimitctl history` and `ratelimitctl report`."""
