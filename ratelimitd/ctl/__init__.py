"""`ratelimitctl`: what an administrator asks of a daemon, running or not, and sees on a terminal."""
