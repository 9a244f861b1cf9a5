"""Warnings that clients cause cannot fill the log."""

import trio
from trio.testing import MockClock

from ratelimitd.log.log import Log
from ratelimitd.log.quiet import LINES, MINUTE_S, QuietLog
from tests.hostile.lines import Lines


def throttle() -> tuple[QuietLog, Lines]:
    lines = Lines()
    return QuietLog(Log([lines])), lines


async def test_a_storm_is_a_few_lines_and_then_its_number(mock_clock: MockClock) -> None:
    throttled, lines = throttle()
    for number in range(1000):
        throttled.warning("refused a connection", peer=number)
    assert lines.texts == [f"refused a connection: peer={number}" for number in range(LINES)]
    throttled.tick()
    assert len(lines.texts) == LINES
    mock_clock.jump(MINUTE_S)
    throttled.tick()
    throttled.tick()
    assert lines.texts[LINES:] == [f"refused a connection: more_of_these={1000 - LINES}"]
    assert throttled.left_out == 1000 - LINES


async def test_each_kind_has_its_own_lines_and_its_own_level() -> None:
    throttled, lines = throttle()
    for _ in range(LINES * 2):
        throttled.warning("refused a connection", peer="a")
    throttled.error("accepting no connections for now", reason="b")
    assert lines.entries[-1] == ("error", "accepting no connections for now: reason=b")


async def test_after_a_minute_lines_are_written_again_behind_the_number(mock_clock: MockClock) -> None:
    throttled, lines = throttle()
    for number in range(LINES + 1):
        throttled.warning("closed", peer=number)
    mock_clock.jump(MINUTE_S)
    throttled.warning("closed", peer="late")
    assert lines.texts[-2:] == ["closed: more_of_these=1", "closed: peer=late"]


async def test_at_the_end_what_was_left_out_is_said_at_once() -> None:
    throttled, lines = throttle()
    for number in range(LINES + 5):
        throttled.warning("closed", peer=number)
    throttled.close()
    throttled.close()
    assert lines.texts[LINES:] == ["closed: more_of_these=5"]


async def test_a_few_lines_a_minute_are_all_written(autojump_clock: MockClock) -> None:
    throttled, lines = throttle()
    for number in range(100):
        throttled.warning("closed", peer=number)
        throttled.tick()
        await trio.sleep(MINUTE_S / (LINES - 1))
    assert lines.texts == [f"closed: peer={number}" for number in range(100)]
