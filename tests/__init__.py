"""The tests of ratelimitd."""
