"""The journal's records: how a charge is written as one line of text, and read again.

The fields of a record are separated by NUL, which no request contains:

    KIND+transaction  recipient  recipients  [limit  expiry  key]...

The transaction is the memo's key: instance, a blank, login. KIND is

    R  a recipient was admitted at RCPT          r  it was refused
    D  recipients were admitted at DATA or END-OF-MESSAGE: those that were not before
    d  a message was refused                     T  a total: no transaction, one account

and the accounts that stand there were charged `recipients` each. Of what was refused those are the limits that refused,
with a record for each number. Of what was admitted, an account that was charged another number (by a limit that counts
messages, or because it had been charged when it refused) is missing, and has a T record of its own behind; one that
does not count the recipient is missing without. An account whose expiry is 0 is that of a limit of one message, which
is counted by the memo alone, and never stored; or it says that a limit counts messages, and has counted this one. Under
a sliding limit the expiry is when the part leaves that was charged.

Records of versions before the login was in them are read as well: their counts hold, but nobody asks about their
transactions. Those versions read these records, with the same result. No other module knows this format; the files
around it are made by segments.py.
"""

from collections import Counter as Multiset
from collections.abc import Iterable, Sequence

from ratelimitd.core.counters import Counter, Window
from ratelimitd.core.memo import Memo
from ratelimitd.core.verdict import Charge

_NO_WINDOW = (-1, "")
_KINDS = frozenset("RrDdT")
_MAX_DIGITS = 18


class Writer:
    """Makes the records of charges. It keeps the text of each limit's latest window: nearly all charges are in it."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, str]] = {}  # by limit: the expiry, and what stands before a key

    def records(self, charges: Iterable[Charge]) -> str:
        """The records of a batch, each with its LF."""
        return "".join([self._refusals(charge) if charge.refused else self._record(charge) for charge in charges])

    def _record(self, charge: Charge) -> str:
        recipient, recipients = charge.recipient, charge.recipients
        accounts = totals = ""
        for counter, amount in zip(charge.counters, charge.amounts):  # noqa: B905  strict takes longer
            if amount == recipients:
                name = counter.meter.limit.name
                expiry, window = self._windows.get(name, _NO_WINDOW)
                if expiry != counter.expiry:
                    window = self._begin(counter)
                accounts = f"{accounts}{window}{counter.key}"
            elif amount:
                totals += total(counter, amount)
        for limit, expiry, key in charge.messages:
            accounts += f"\0{limit}\0{expiry}\0{key}"
        if recipient is None:
            return f"D{charge.transaction}\0\0{recipients}{accounts}\n{totals}"
        return f"R{charge.transaction}\0{recipient}\0{recipients}{accounts}\n{totals}"

    def _refusals(self, charge: Charge) -> str:
        kind, recipient = ("d", "") if charge.recipient is None else ("r", charge.recipient)
        made = ""
        for amount in dict.fromkeys(charge.amounts or [1]):
            charged = zip(charge.counters, charge.amounts, strict=True)
            accounts = "".join([self._begin(counter) + counter.key for counter, number in charged if number == amount])
            made += f"{kind}{charge.transaction}\0{recipient}\0{amount}{accounts}\n"
        return made

    def _begin(self, counter: Counter) -> str:
        name, expiry, _ = counter.window
        window = f"\0{name}\0{expiry}\0"
        self._windows[name] = expiry, window
        return window


def total(counter: Counter, recipients: int) -> str:
    """The record of what one account was charged in all, with its LF."""
    return f"T\0\0{recipients}\0{counter.meter.limit.name}\0{counter.expiry}\0{counter.key}\n"


def ends(records: Iterable[str]) -> Multiset[str]:
    """How often each charge was made: the ends of records without their LFs, for `windows` to take apart."""
    return Multiset([record.split("\0", 2)[2] for record in records])


def windows(end: str) -> tuple[int, list[Window]]:
    """The recipients of one charge, and the windows it went to, from the end of its record: what is to be stored."""
    recipients, accounts = _accounts(end)
    return recipients, [window for window in accounts if window[1]]


def _accounts(end: str) -> tuple[int, list[Window]]:
    """The same with limits of one message, whose windows end at 0."""
    recipients, *accounts = end.split("\0")
    found = zip(accounts[::3], accounts[1::3], accounts[2::3], strict=True)
    return int(recipients), [(limit, int(expiry), key) for limit, expiry, key in found]


def has_transactions(beginning: str) -> bool:
    """Whether a segment that begins with this character has records of transactions: one of totals has none."""
    return beginning != "T" and beginning in _KINDS


def sound(records: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of the records, without their LFs, that are records, and the others."""
    found: list[str] = []
    others: list[str] = []
    known: dict[str, bool] = {}  # by the end: nearly all are alike
    for record in records:
        end = record.partition("\0")[2].partition("\0")[2]
        fits = known.get(end)
        if fits is None:
            fits = known[end] = _is_end(end)
        (found if fits and record[0] in _KINDS else others).append(record)
    return found, others


def _is_end(end: str) -> bool:
    """Whether `windows` can take it apart."""
    recipients, *accounts = end.split("\0")
    return len(accounts) % 3 == 0 and all(map(_is_number, (recipients, *accounts[1::3])))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def remember(records: Sequence[str], memo: Memo) -> None:
    """Put the transactions of records without their LFs into the memo."""
    for record in records:
        head, recipient, end = record.split("\0", 2)
        kind, transaction = head[0], head[1:]
        if kind == "T" or not transaction:
            continue
        recipients, charged = _accounts(end)
        found = memo.find(transaction)
        at = recipient if kind in "Rr" else None
        if kind in "RD":
            memo.admit(transaction, found, at, recipients)
            memo.spend(transaction, [window for window in charged if not window[1]], recipients)
        else:
            memo.refuse(transaction, found, at, tuple(charged), recipients)
