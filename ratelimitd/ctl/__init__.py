"""`ratelimitctl`: what an administrator asks a daemon, running or not, and sees on a terminal."""
