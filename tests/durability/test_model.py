"""Random charges, flushes, faults, crashes, clock steps and edits, against a model; and mutants that it must catch."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ratelimitd.core import pending
from ratelimitd.core.counters import Counter, Knowledge
from ratelimitd.core.pending import Pending, Segment, first
from ratelimitd.core.rows import NO_BOUND, Delta
from ratelimitd.core.verdict import Charge
from ratelimitd.core.windows import Period
from ratelimitd.state import backlog
from ratelimitd.state.backlog import Backlog
from ratelimitd.state.journal import Journal
from ratelimitd.state.past import Past
from ratelimitd.state.segments import Recovered
from ratelimitd.stores import statements
from ratelimitd.stores.dialect import Dialect
from ratelimitd.sync import recovery
from tests.core.transactions import Transactions
from tests.durability.model import Account, Model
from tests.durability.node import Node, make_limit

LIMITS = [make_limit("daily", "email", "daily", 20), make_limit("hourly", "domain", "hourly", 30)]
LOGINS = [f"user{i}@{name}.example" for name in ("a", "b") for i in range(2)]
# The edits' times are the machine's: what is after now is after them too.
STARTS = [
    1_900_000_000,  # 2030-03-17
    1_901_149_200 - 1800,  # half an hour before the clocks go forward, 2030-03-31 01:00 UTC
    1_919_293_200 - 1800,  # half an hour before they go back, 2030-10-27 01:00 UTC
    1_924_988_400 - 60,  # a minute before 2031
]
COMMON = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # making a failure shorter takes minutes, and the runs are short
    database=None,
    report_multiple_bugs=False,
)
YEARS_S = 20 * 365 * 86_400
MEMORY = Path("/dev/shm")  # where it is, nothing waits for a disk


class Durability(RuleBasedStateMachine):
    """One state directory through many runs of the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ratelimitd-journal-", dir=MEMORY if MEMORY.is_dir() else None))
        self.now = STARTS[0]
        self.asked = 0
        self.transactions: Transactions[Account] = Transactions()
        self.latest = self.now
        self.model = Model({limit.name: limit.quota for limit in LIMITS}, {"daily": "daily", "hourly": "hourly"})
        self.node = self._start()

    def _start(self) -> Node:
        node = Node(self.folder, LIMITS, lambda: self.now)
        trio.run(node.start)
        self.model.begin_run(self.now)
        return node

    @initialize(start=st.sampled_from(STARTS))
    def begin_at(self, start: int) -> None:
        """The test begins around a clock change, or far from one."""
        self.now = self.latest = start

    @rule(logins=st.lists(st.sampled_from(LOGINS), min_size=1, max_size=4), recipients=st.integers(0, 4))
    def charge(self, logins: list[str], recipients: int) -> None:
        """Requests, each of a transaction of its own; their counts are exact at once."""
        for login in logins:
            self._charge(login, recipients)

    @rule(
        login=st.sampled_from(LOGINS),
        instance=st.sampled_from(["s1", "s2", "s3"]),
        recipients=st.sampled_from([0, 0, 0, 1, 3, 9, 25, 40]),
        recipient=st.sampled_from(["a@x", "b@x", "c@x"]),
    )
    def go_on(self, login: str, instance: str, recipients: int, recipient: str) -> None:
        """Transactions that last: through flushes, restarts, windows."""
        self._charge(login, recipients, instance, recipient)

    @rule()
    def divide(self) -> None:
        """What is charged already and what follows are stored in two transactions."""
        self.node.divide()

    def _charge(self, login: str, recipients: int, instance: str = "", recipient: str = "r@x") -> None:
        self.asked += 1
        instance = instance or f"i{self.asked}"
        accounts = _accounts(login)
        for account in accounts:  # a window that memory opened while the clock was ahead is kept
            known = self._counter(account)
            if known is not None and self.now < known.expiry:
                self.model.begin(account, known.expiry, self.now)
        verdict = trio.run(lambda: self.node.ask(login, recipients, instance=instance, recipient=recipient))
        charge = verdict.charge
        charged: dict[Account, int] = {}
        if charge is not None:
            amounts = zip(charge.counters, charge.amounts, strict=True)
            charged = {(counter.limit.name, counter.key): amount for counter, amount in amounts if amount}
        key, at = f"{instance} {login}", "" if recipients else recipient
        self._check_verdict(accounts, charged, key, at, recipients, verdict.refused)
        for account, amount in charged.items():
            counter = self._counter(account)
            assert counter is not None
            if counter.knowledge == Knowledge.STORED:
                assert self.model.charge(account, amount, self.now) == counter.used, account
            else:  # the store is away: nobody knows the account, nor the window it is in
                self.model.charge_unknown(account, amount, counter.expiry, self.now)

    def _check_verdict(
        self, accounts: list[Account], charged: dict[Account, int], key: str, at: str, recipients: int, refused: bool
    ) -> None:
        """Every account was charged what it was due, or those that refused."""
        more = self.transactions.more(key, at, recipients)
        if not more:
            assert not charged
            assert not refused
            return
        counters = {account: self._counter(account) for account in accounts}
        windows = {account: counter.expiry for account, counter in counters.items() if counter is not None}
        if self._has_lost(key):
            self.transactions.doubtful.add(key)
        dues = self.transactions.dues(key, at, more, windows)
        over = set()
        for account, counter in counters.items():
            assert counter is not None
            if counter.quota and counter.used + dues[account] - charged.get(account, 0) > counter.quota:
                over.add(account)
        assert bool(over) == refused
        if over:
            dues = self.transactions.owed(key, at, more, windows)
        assert charged == {account: due for account, due in dues.items() if due and (account in over or not refused)}
        if not refused:
            self.transactions.admit(key, at, more)
        for account in over:
            self.transactions.refuse(key, at, account, windows[account], dues[account])

    def _has_lost(self, key: str) -> bool:
        """Whether a count lost what it had been charged since a transaction was refused (test_policy.py says when)."""
        policy = self.node.policy
        transaction = policy.memo.find(key)
        return transaction is not None and transaction.refused is not None and transaction.epoch != policy.epoch

    @rule()
    def flush(self) -> None:
        """A flush that succeeds: all is stored, nothing twice."""
        assert trio.run(self.node.flush)
        self.model.store(self.now)
        self._compare()

    @rule(fault=st.sampled_from(["away", "before", "between"]), times=st.integers(1, 4))
    def flush_that_fails(self, fault: str, times: int) -> None:
        """Flushes that store nothing; segments accumulate, and are merged."""
        for _ in range(times):
            trio.run(self.node.flush, fault)
            self._charge(LOGINS[0], 1)
        self._compare()

    @rule()
    def flush_without_acknowledgement(self) -> None:
        """The transaction is done, but nobody says so."""
        pending = self.node.policy.pending
        left = [segment for segment in (*pending.closed, pending.open) if segment.deltas]
        runs = {segment.node for segment in left}
        ours = [segment for segment in left if segment.node == self.node.journal.node]
        assert not trio.run(self.node.flush, "after") or not runs
        # Each run has a transaction of its own, and this one has several where segments are large.
        one = len(runs) < 2 and len(ours) == len(first(ours, backlog.ACCOUNTS))
        assert one or trio.run(self.node.flush)
        self.model.store(self.now)
        self._compare()

    @rule()
    def crash(self) -> None:
        """SIGKILL, and a new start."""
        trio.run(self.node.crash)
        self.node = self._start()

    @rule()
    def restart(self) -> None:
        """SIGTERM, and a new start."""
        trio.run(self.node.stop)
        self.model.store(self.now)
        self.node = self._start()
        self._compare()

    @rule(step=st.sampled_from([1, 600, 3600, 7200, 86_400, 40 * 86_400, -1, -3600]))
    def step_the_clock(self, step: int) -> None:
        """Time passes, or the clock is set; back too, by at most the shortest window."""
        self.now = max(self.now + step, self.latest - 3600)
        self.latest = max(self.latest, self.now)

    @rule(login=st.sampled_from(LOGINS), stored=st.booleans(), restarts=st.booleans())
    def put_the_clock_years_ahead(self, login: str, stored: bool, restarts: bool) -> None:
        """For a moment: what is charged then, and stored, is no window's, also after a restart."""
        ahead = YEARS_S + self.asked * 3 * 86_400  # another window each time
        self.now += ahead
        self._charge(login, 1)
        if stored:
            self.flush()
        self.now -= ahead
        if restarts:
            self.crash()
        self.flush()  # what was charged before and is not stored is in memory again after a flush

    @rule()
    def sweep(self) -> None:
        """What ended and is stored is forgotten."""
        trio.run(self.node.sync.sweep)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data(), quota=st.integers(1, 60), persist=st.booleans())
    def edit(self, data: st.DataObject, quota: int, persist: bool) -> None:
        """An administrator's quota is obeyed once it is refreshed."""
        account = data.draw(st.sampled_from(sorted(self.model.rows)))
        row = self.model.rows[account]
        if row.expiry > self.model.latest(account[0], self.now):
            return  # a grant in a window that is none: until when is anybody's guess
        row.quota, row.persist = quota, persist
        statement = "UPDATE ratelimit SET quota = ?, persist = ? WHERE limit_name = ? AND sender = ?"
        self.node.edit(statement, quota, persist, *account)
        trio.run(self.node.sync.refresh)
        counter = self._counter(account)
        obeyed = persist or row.expiry > self.now
        if self.node.sync.link.up and counter is not None and obeyed and row.expiry >= counter.expiry:
            assert counter.quota == quota

    def _counter(self, account: Account) -> Counter | None:
        meter = next(meter for meter in self.node.policy.meters if meter.limit.name == account[0])
        return meter.counters.get(account[1])

    def _compare(self) -> None:
        rows = trio.run(self.node.rows)
        stored = {account: (row.expiry, row.used, row.quota, row.persist) for account, row in rows.items()}
        wanted = {account: (row.expiry, row.used, row.quota, row.persist) for account, row in self.model.rows.items()}
        assert stored == wanted

    def teardown(self) -> None:
        """In the end everything is stored, and no segment is left."""
        try:
            trio.run(self.node.stop)
            self.model.store(self.now)
            self.node = self._start()
            self._compare()
            # A segment may be left that says only what was admitted after all, and charges nobody.
            assert not any(segment.deltas for segment in self.node.policy.pending.closed)
        finally:
            trio.run(self.node.crash)
            shutil.rmtree(self.folder)


def _accounts(login: str) -> list[Account]:
    return [("daily", login), ("hourly", login.partition("@")[2])]


@pytest.fixture(autouse=True)
def few_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge soon, and divide soon, so that it happens often."""
    monkeypatch.setattr(backlog, "MAX_CLOSED", 2)
    monkeypatch.setattr(backlog, "ACCOUNTS", 4)


def test_whatever_happens_every_answered_charge_is_stored_once() -> None:
    run_state_machine_as_test(Durability, settings=settings(COMMON, max_examples=40, stateful_step_count=30))


@pytest.mark.long
def test_whatever_happens_every_answered_charge_is_stored_once_at_length() -> None:
    run_state_machine_as_test(Durability, settings=settings(COMMON, max_examples=2000, stateful_step_count=60))


def test_a_window_that_nothing_is_stored_of_and_no_memory_knows_is_not_gone_on_with() -> None:
    """A row of a clock that was years ahead stands in the way of what is stored under such a clock; it is lost, and
    after a crash and a clock put back nobody knows that the account had been in a later window."""
    machine = Durability()
    try:
        machine.put_the_clock_years_ahead("user0@a.example", stored=True, restarts=False)
        machine.charge(["user1@a.example"], 3)
        machine.put_the_clock_years_ahead("user0@b.example", stored=True, restarts=True)
        machine.step_the_clock(-3600)
        machine.charge(["user0@a.example"], 0)
        machine.flush()
    finally:
        machine.teardown()


def test_a_window_of_a_clock_years_ahead_is_forgotten_by_who_looks_an_account_up_again() -> None:
    """The account is known, but not charged, before the clock is put back; it goes on in the window it was known in."""
    machine = Durability()
    try:
        machine.put_the_clock_years_ahead("user0@b.example", stored=True, restarts=False)
        machine.crash()
        machine.put_the_clock_years_ahead("user1@b.example", stored=False, restarts=True)
        machine.go_on("user1@b.example", "s1", 25, "a@x")  # its own limit refuses, its domain's does not
        machine.step_the_clock(-3600)
        machine.charge(["user0@b.example"], 3)
        machine.charge(["user1@b.example"], 4)
    finally:
        machine.teardown()


# -- mutants: each breaks one thing on purpose, and the model must see it --------------------------------------------


def _rotate_keeps_the_number(patch: pytest.MonkeyPatch) -> None:
    def close(self: Pending, next_number: int) -> None:
        self.closed.append(self.open)
        self.open = Segment(self.open.number, self.open.node)

    patch.setattr(Pending, "close", close)


def _record_is_lost(patch: pytest.MonkeyPatch) -> None:
    whole = Journal.write

    def write(self: Journal, charges: Sequence[Charge]) -> None:
        whole(self, [charge for charge in charges if charge.transaction.split(" ")[0][-1:] not in ("2", "5", "8")])

    patch.setattr(Journal, "write", write)


def _replay_leaves_out_the_last_segment(patch: pytest.MonkeyPatch) -> None:
    whole = recovery.restore

    def restore(segments: Sequence[Recovered], *rest: Any) -> int:
        return whole(segments[:-1], *rest)

    patch.setattr(recovery, "restore", restore)


def _merge_ignores_what_is_recorded(patch: pytest.MonkeyPatch) -> None:
    whole = pending.merge

    def merge(segments: Iterable[Segment], after: int, now: int) -> Iterator[Delta]:
        return whole(segments, 0, now)

    patch.setattr(backlog, "merge", merge)


def _window_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    whole = statements.upsert

    def upsert(d: Dialect, one: Delta, count: int = 1) -> str:
        adds = whole(d, one, count).replace('< excluded."expiry" THEN excluded."used"', "< 0 THEN 0")
        assert adds != whole(d, one, count)
        return adds

    patch.setattr(statements, "upsert", upsert)


def _joined_segments_in_doubt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "_doubtful", property(lambda self: 0, lambda self, value: None), raising=False)


def _stored_segments_are_deleted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Past, "keep", lambda self, path, number: path.unlink())


def _refusals_have_no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Counter, "window", property(lambda self: (self.limit.name, 0, self.key)))


def _every_window_is_plausible(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Period, "latest", lambda self, now: NO_BOUND)


MUTANTS = [
    _stored_segments_are_deleted,
    _refusals_have_no_window,
    _every_window_is_plausible,
    _rotate_keeps_the_number,
    _record_is_lost,
    _replay_leaves_out_the_last_segment,
    _merge_ignores_what_is_recorded,
    _window_is_not_looked_at,
    _joined_segments_in_doubt,
]


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__.strip("_"))
def test_the_model_catches_the_mutant(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    search = settings(COMMON, max_examples=400, stateful_step_count=40)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(Durability, settings=search)
