"""`ratelimitd`: the daemon put together from its parts, its start, reload and end."""
