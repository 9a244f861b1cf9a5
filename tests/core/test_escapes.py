"""What clients send, and what is shown of it, is told apart: no two texts have one escape."""

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.keys import normalise
from ratelimitd.request import RequestReader
from ratelimitd.text import read, spell, unspelled

PIECES = (b"\xff", b"\\", b"xff", b"XfF", b"x00", b"\0", b"a")


def alike_in_lower_case() -> Iterator[bytes]:
    """All that is made of up to five of these pieces, in one case of letters."""
    made = {b"".join(some) for count in range(6) for some in itertools.product(PIECES, repeat=count)}
    yield from {each.lower() for each in made}


def test_no_two_byte_strings_are_one_text_nor_one_key() -> None:
    sent = list(alike_in_lower_case())
    assert len({read(each) for each in sent}) == len(sent)
    assert len({normalise("k" + read(each)) for each in sent}) == len(sent)


@given(st.binary(), st.binary())
def test_whatever_bytes_differ_are_different_texts(one: bytes, other: bytes) -> None:
    assert (read(one) == read(other)) == (one == other)


def test_an_escape_in_capitals_is_no_byte_in_the_lower_case_of_keys() -> None:
    assert len({normalise(read(each)) for each in (b"\xff", b"\\xFF", b"\\XFF")}) == 2


def test_a_backslash_that_could_not_be_an_escape_stays() -> None:
    for text in (b"DOMAIN\\user", b"DOMAIN\\xavier", b"DOMAIN\\0", b"a\\\\b", b"a\\", b"\\x1b", b"\\x7f"):
        assert read(text) == text.decode()


def test_a_request_reads_alike_at_whatever_place_it_is_cut() -> None:
    data = b"request=smtpd_access_policy\nrecipient=\\xff\\\xff\\\\x00\\n\n\n"
    for cut in range(1, len(data)):
        reader = RequestReader(1000)
        request = reader.receive(data[:cut]) or reader.receive(data[cut:])
        assert request is not None
        assert request["recipient"] == r"\\xff\\\xff\\\\x00\n"


def test_a_long_run_of_backslashes_takes_no_longer() -> None:
    """A search that began again at each of them would take minutes."""
    assert read(b"\\" * 1_000_000 + b"y") == "\\" * 1_000_000 + "y"
    assert spell("\\" * 1_000_000 + "y") == "\\" * 1_000_000 + "y"
    assert unspelled("\\" * 1_000_000 + "y") == "\\" * 1_000_000 + "y"


def test_no_two_texts_are_spelled_alike() -> None:
    pieces = ("\x1b", "\\", "x1b", ",", "x2c", "\u202e", "u202e", "\U000e0001", "U000e0001", "\x85", "x85", "n")
    made = {"".join(some) for count in range(5) for some in itertools.product(pieces, repeat=count)}
    assert [unspelled(spell(each, but=",")) for each in made] == [*made]
    assert len({spell(each, but=",") for each in made}) == len(made)
    assert all(spell(each, but=",").isprintable() and "," not in spell(each, but=",") for each in made)


def test_what_was_read_of_a_byte_is_spelled_as_it_is() -> None:
    for text in ("\\xff", "\\\\xff", "DOMAIN\\user", "caf\u00e9"):
        assert spell(text) == text


def test_what_is_no_spelling_of_anything_stays() -> None:
    for text in ("DOMAIN\\user", "a\\xff", "\\ud800", "\\U00110000", "\\"):
        assert unspelled(text) == text
