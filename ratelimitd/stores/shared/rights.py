"""The rights that the daemon's account needs on our tables, and the statements that give it those that it lacks."""

from collections.abc import Iterable

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
LACKING = "the daemon's account lacks rights, which an administrator must grant"
"""Said at a start and by `ratelimitctl check`: what needs them fails until then, and counts are in the journal."""


def grants(lacking: Iterable[tuple[str, str]], account: str) -> str:
    """The statements for tables and what is lacking on each, "UPDATE, DELETE"; the names are quoted. "": none is."""
    return "; ".join(f"GRANT {rights} ON {table} TO {account}" for table, rights in lacking if rights)
