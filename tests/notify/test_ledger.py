"""The ledger takes whatever a file may hold: what it does not understand is left out, and counted."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.log.log import Log
from ratelimitd.log.quiet import QuietLog
from ratelimitd.notify.ledger import NAME, Ledger
from ratelimitd.notify.notifier import Notifier
from ratelimitd.state.directory import StateDir
from tests.core.build import NOON

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
LIKE_OURS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("a") | ANYTHING,
        "expiry": st.just(NOON) | ANYTHING,
        "to": st.just(["x"]) | ANYTHING,
        "notice": st.just({"key": "k"}) | ANYTHING,
        "over": st.just("x") | ANYTHING,
    },
)
LINES = st.lists((ANYTHING | LIKE_OURS).map(lambda line: json.dumps(line).encode()) | st.binary(max_size=9))


@given(LINES)
def test_no_line_of_any_shape_ends_the_start(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / NAME).write_bytes(b"".join(line + b"\n" for line in lines))
        ledger = Ledger(StateDir(path))
        ids = ledger.load()
        ledger.compact(ids)
        again = Ledger(StateDir(path))
        assert again.load() == ids
        assert (again.foreign, again.unsent) == (0, ledger.unsent)


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "b", "over": ["x"]}',
        '{"id": "b", "expiry": 1, "to": 7, "notice": {}}',
        '{"id": "b", "expiry": 1, "to": [["x"]], "notice": {}}',
        '{"id": "b", "expiry": 1, "to": ["x"], "notice": "text"}',
        '{"id": "b", "expiry": 1, "to": ["x"], "notice": []}',
        '{"id": ["b"], "expiry": 1}',
        '{"id": "b", "expiry": 1e400}',
        "[" * 100_000,
        "nonsense",
    ],
)
async def test_a_line_that_is_not_ours_is_left_out_with_one_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    good = f'{{"id": "a", "expiry": {NOON}}}\n'
    (tmp_path / NAME).write_text(f"{line}\n{good}{line}\n" + '{"id": "c", "exp')
    warnings: list[dict[str, object]] = []
    log = Log([])
    monkeypatch.setattr(log, "warning", lambda event, **fields: warnings.append(fields))
    notifier = Notifier(StateDir(tmp_path), QuietLog(log), [])
    await notifier.begin()
    assert notifier.watch.notified == {"a": NOON}
    assert warnings == [{"lines": 2}]
