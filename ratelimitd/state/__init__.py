"""The state directory: its lock, and the journal that every charge is in before its reply."""
