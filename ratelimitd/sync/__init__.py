"""Memory and store in step: the flush, lookups, what others changed, recovery after a crash."""
