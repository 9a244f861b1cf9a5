"""The journal's records: how a charge is written as one line of text, and read again.

The fields of a record are separated by NUL, which no request contains:

    KIND+instance  recipient  recipients charged  [limit  expiry  key]...

KIND is R (at RCPT) or D (at DATA and END-OF-MESSAGE), lower case where the answer was a refusal, or T for a total. An
account that was charged another number than the request's recipients, as by limits that count messages, has a T
record of its own behind. No other module knows this format; the files around it are made by segments.py.
"""

from collections import Counter as Multiset
from collections.abc import Iterable, Sequence

from ratelimitd.core.counters import Counter
from ratelimitd.core.memo import Memo
from ratelimitd.core.verdict import Charge

Window = tuple[str, int, str]
"""A limit's name, the end of its window in seconds since 1970, a key."""

_NO_WINDOW = (-1, "")


class Writer:
    """Makes the records of charges. It keeps the text of each limit's latest window: nearly all charges are in it."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, str]] = {}  # by limit: the expiry, and what stands before a key

    def records(self, charges: Iterable[Charge]) -> str:
        """The records of a batch, each with its LF."""
        return "".join([self._record(charge) for charge in charges])

    def _record(self, charge: Charge) -> str:
        recipient, recipients = charge.recipient, charge.recipients
        accounts = totals = ""
        for counter in charge.counters:
            limit = counter.meter.limit
            if not limit.by_message or charge.messages == recipients:
                expiry, window = self._windows.get(limit.name, _NO_WINDOW)
                if expiry != counter.expiry:
                    window = f"\0{limit.name}\0{counter.expiry}\0"
                    self._windows[limit.name] = counter.expiry, window
                accounts = f"{accounts}{window}{counter.key}"
            elif charge.messages:
                totals += total(counter, charge.messages)
        if recipient is None:
            return f"{'d' if charge.refused else 'D'}{charge.instance}\0\0{recipients}{accounts}\n{totals}"
        return f"{'r' if charge.refused else 'R'}{charge.instance}\0{recipient}\0{recipients}{accounts}\n{totals}"


def total(counter: Counter, recipients: int) -> str:
    """The record of what one account was charged in all, with its LF."""
    return f"T\0\0{recipients}\0{counter.meter.limit.name}\0{counter.expiry}\0{counter.key}\n"


def ends(records: Iterable[str]) -> Multiset[str]:
    """How often each charge was made: the ends of records without their LFs, for `windows` to take apart."""
    return Multiset([record.split("\0", 2)[2] for record in records])


def windows(end: str) -> tuple[int, list[Window]]:
    """The recipients of one charge, and the windows it went to, from the end of its record."""
    recipients, *accounts = end.split("\0")
    found = zip(accounts[::3], accounts[1::3], accounts[2::3], strict=True)
    return int(recipients), [(limit, int(expiry), key) for limit, expiry, key in found]


def remember(records: Sequence[str], memo: Memo) -> None:
    """Put the transactions of records without their LFs into the memo."""
    for record in records:
        head, recipient, recipients = record.split("\0", 3)[:3]
        kind, instance = head[0], head[1:]
        if kind == "T" or not instance:
            continue
        transaction = memo.find(instance)
        if kind in "Rr":
            memo.charge_recipient(instance, transaction, recipient, kind == "R")
        else:
            memo.charge_message(instance, transaction, int(recipients), kind == "D")
