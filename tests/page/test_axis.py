"""Where things stand in a picture, whatever is used: in order, within the picture, and none over another."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.ctl.page.axis import Axis
from ratelimitd.ctl.page.drawing import labels, round_number, short, text_px

USES = st.integers(1, 10**12)
PIXELS = st.integers(120, 1200)


@given(st.lists(USES, min_size=1), PIXELS)
def test_a_greater_use_stands_further_right_and_none_outside(uses: list[int], width: int) -> None:
    axis = Axis(min(uses), max(uses), 40, 40 + width)
    places = [axis.at(used) for used in sorted(set(uses))]
    assert all(40 < place <= 40 + width + 1e-6 for place in places)
    assert all(a < b for a, b in pairwise(places))


@given(USES, USES, PIXELS)
def test_ticks_are_round_and_have_room(least: int, greatest: int, width: int) -> None:
    axis = Axis(least, max(least, greatest), 0, width)
    ticks = axis.ticks()
    assert all(axis.ends[0] < tick <= axis.ends[-1] for tick in ticks)
    for a, b in pairwise(ticks):
        assert axis.at(b) - axis.at(a) >= (text_px(short(a)) + text_px(short(b))) / 2


@given(st.lists(st.tuples(st.floats(50, 800), st.text("0123456789", max_size=20), st.just("use")), max_size=8))
def test_labels_stand_beside_or_above_each_other(wanted: list[tuple[float, str, str]]) -> None:
    spans = []
    for label in labels(wanted, 46):
        width = text_px(label.text)
        begin = label.x - width if label.anchor == "end" else label.x
        assert begin >= 46
        spans.append((label.row, begin, begin + width))
    for i, (row, begin, end) in enumerate(spans):
        assert all(row != other or end <= a or begin >= b for other, a, b in spans[i + 1 :])


def test_round_numbers_and_short_ones() -> None:
    assert [round_number(most) for most in (0.5, 1, 4.9, 5, 99, 100, 12_345)] == [0, 1, 2, 5, 50, 100, 10_000]
    assert [short(value) for value in (0, 999, 9999, 12_345, 1_234_567, 2 * 10**9, 3 * 10**12)] == [
        "0", "999", "9,999", "12.3k", "1.23M", "2G", "3T",
    ]  # fmt: skip
