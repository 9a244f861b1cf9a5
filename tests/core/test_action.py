"""Replies: always exactly one well-formed action."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ratelimitd.core.action import ALLOWED, DUNNO, MAX_BYTES, PLACEHOLDERS, ActionError, Template, reply

ONE_ACTION = re.compile(
    rb"action=(?:dunno|[45][0-9][0-9] [!-~][ -~]*"
    rb"|(?:reject|defer|defer_if_permit|defer_if_reject|hold|discard|warn|info)(?: [ -~]+)?)\n\n",
    re.IGNORECASE,
)

ALLOWED_ACTIONS = [
    "DUNNO",
    "dunno",
    "450 4.7.1 quota exceeded",
    "471 over quota",
    "550   5.7.1 no",
    "REJECT",
    "REJECT 5.7.1 no",
    "Defer later",
    "DEFER_IF_PERMIT",
    "DEFER_IF_REJECT {used}",
    "HOLD",
    "DISCARD quietly",
    "WARN {key} is at {used} of {quota}",
    "INFO",
    "450 {period}: {used}/{quota}, {key}, until {reset}",
    "450 {{braces}}",
    "  HOLD  ",
]

REFUSED_ACTIONS = [
    "",
    " ",
    "OK",
    "PERMIT",
    "ok",
    "250 fine",
    "350 what",
    "450",
    "450 ",
    "4500 x",
    "45 x",
    "450x y",
    "450: x",
    "REJECT: x",
    "REJECTED",
    "REJECT\nOK",
    "450 a\n\naction=OK",
    "450 a\rb",
    "450 a\0b",
    "450 ä",
    "450 \x1b[0m",
    "action=DUNNO",
    "DUNNO x",
    "PREPEND X-A: b",
    "FILTER x:y",
    "REDIRECT a@b.c",
    "BCC a@b.c",
    "permit_mynetworks",
    "{key}",
    "{used} x",
    "45{used} x",
    "450{used} x",
    "REJECT{key}",
    "450 {key}",
    "450 {used} {quota}",
    "450 {nothing} x",
    "450 x {}",
    "450 x {0}",
    "450 x {key.__class__}",
    "450 x {key[0]}",
    "450 x {key!r}",
    "450 x {used:d}",
    "450 x {used:{quota}}",
    "450 x {",
    "450 x }",
    "450 x {key",
    "450 " + "x" * 197,
]


@pytest.mark.parametrize("text", ALLOWED_ACTIONS)
def test_an_action_that_postfix_can_be_given_is_allowed(text: str) -> None:
    assert ONE_ACTION.fullmatch(Template(text).fixed)


@pytest.mark.parametrize("text", REFUSED_ACTIONS)
def test_any_other_action_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ActionError) as refused:
        Template(text)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_word_is_answered_with_the_list_of_right_ones() -> None:
    with pytest.raises(ActionError, match="DUNNO, 4NN TEXT, 5NN TEXT") as refused:
        Template("OK")
    assert str(refused.value) == ALLOWED


def test_a_wrong_placeholder_is_answered_with_the_list_of_right_ones() -> None:
    with pytest.raises(ActionError) as refused:
        Template("450 {user} x")
    assert all("{" + name + "}" in str(refused.value) for name in PLACEHOLDERS)


def test_every_placeholder_is_filled_in() -> None:
    template = Template("450 4.7.1 {period} {used}/{quota} of {key} until {reset} {{}}")
    assert template.render(used=6, quota=5, key="{used}@x", period="daily", reset="2026-11-23 00:00 +0100") == (
        b"action=450 4.7.1 daily 6/5 of {used}@x until 2026-11-23 00:00 +0100 {}\n\n"
    )


def test_dunno_is_one_reply() -> None:
    assert DUNNO == b"action=DUNNO\n\n" == Template("DUNNO").fixed


def test_a_text_of_exactly_the_bound_is_allowed() -> None:
    text = "450 " + "x" * (MAX_BYTES - 4)
    assert Template(text).fixed == b"action=" + text.encode() + b"\n\n"


NASTY = ["a\n\naction=OK", "a\r\n", "\0", "ä\u2028", "\x1b[31m", "\ud800", " " * 300, "x" * 9000]
PARTS = [*(f"{{{name}}}" for name in PLACEHOLDERS), "x", " ", "  ", ": ", "{{", "}}", "4.7.1 ", "/"]


@pytest.mark.parametrize("key", NASTY)
def test_no_key_breaks_the_reply(key: str) -> None:
    found = Template("450 {key} is over quota").render(used=1, quota=1, key=key, period="daily", reset="")
    assert ONE_ACTION.fullmatch(found)
    assert len(found) <= len(b"action=\n\n") + MAX_BYTES


@given(
    st.lists(st.sampled_from(PARTS)),
    st.sampled_from(["450 ", "550  ", "REJECT ", "HOLD ", "warn ", "defer_if_permit "]),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
    st.text(),
    st.text(max_size=30),
)
@example(["{key}", "x"], "450 ", 0, 0, " " * 400, "")
@example(["{key}", "{used}", "x"], "450 ", 0, 0, "", "\n")
def test_whatever_is_filled_in_the_reply_is_one_action(
    parts: list[str], word: str, used: int, quota: int, key: str, reset: str
) -> None:
    try:
        template = Template(word + "".join(parts))
    except ActionError:
        assume(False)
    for found in (template.render(used=used, quota=quota, key=key, period="daily", reset=reset), template.fixed):
        assert ONE_ACTION.fullmatch(found)
        assert len(found) <= len(b"action=\n\n") + MAX_BYTES


@given(st.text())
def test_any_text_is_refused_or_makes_one_action(text: str) -> None:
    try:
        found = Template(text).fixed
    except ActionError:
        return
    assert ONE_ACTION.fullmatch(found)


@given(st.text())
def test_a_reply_is_one_line_and_its_end_whatever_its_text(text: str) -> None:
    found = reply(text)
    assert found.startswith(b"action=")
    assert found.endswith(b"\n\n")
    assert found.isascii()
    assert found.count(b"\n") == 2
    assert len(found) <= len(b"action=\n\n") + MAX_BYTES
