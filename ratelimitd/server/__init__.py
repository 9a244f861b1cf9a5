"""Postfix's side: connections, and the one task that decides all their requests."""
