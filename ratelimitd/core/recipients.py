"""Recipients that cost a limit nothing: `free_recipients`. What an address is compared with, and nothing about charges.

A client chooses the address, and Postfix may deliver to another domain than that behind the last @:
`a%b.example@our.example` goes to b.example where our.example is local, and so do local parts as `b.example!a` and
`"a@b.example"`. So no such local part is free because of its domain.
"""

import re
from collections.abc import Iterable

from ratelimitd.text import MAX_BYTES, lower

_ENTRY = re.compile(r'(?P<local>"[^"\\]+"|[^\s"@]+)?@(?P<domain>[A-Za-z0-9._-]+|\[[A-Za-z0-9.:]+\])')
_ROUTING = re.compile(r"[%!@]")


class FreeRecipients:
    """Addresses and domains, compared in lower case (ASCII). `recipient in free`; false where there are none."""

    __slots__ = ("_addresses", "_domains")

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """`entries` are addresses, `a@b.example`, and domains, `@b.example`. Raises ValueError with the first wrong
        one."""
        self._addresses: set[str] = set()
        self._domains: set[str] = set()
        for entry in entries:
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise ValueError(entry)
            if found["local"]:
                self._addresses.add(lower(entry))
            else:
                self._domains.add(lower(found["domain"]))

    def __bool__(self) -> bool:
        return bool(self._addresses or self._domains)

    def __contains__(self, recipient: str) -> bool:
        if not recipient or len(recipient) > MAX_BYTES:
            return False
        address = lower(recipient)
        if address in self._addresses:
            return True
        local, _, domain = address.rpartition("@")
        return domain in self._domains and local != "" and not _ROUTING.search(local)


NONE = FreeRecipients()
