"""The protocol: bytes in, requests out, whatever they are and wherever they are cut."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.errors import RequestTooLong
from ratelimitd.request import Request, RequestReader
from tests.core.build import arrived

TOO_LONG = "too long"


def read(parts: Iterable[bytes], max_bytes: int = 65536) -> tuple[list[str], bool]:
    """What a reader makes of a stream that arrives in these parts: the requests, and whether bytes are left."""
    reader = RequestReader(max_bytes)
    found: list[str] = []
    for part in parts:
        try:
            found += map(repr, arrived(reader, part))
        except RequestTooLong:
            return [*found, TOO_LONG], True
    return found, bool(reader.buffer)


def one(data: bytes, default_domain: str = "") -> Request:
    reader = RequestReader(65536, default_domain=default_domain)
    request = reader.receive(data)
    assert request is not None
    assert reader.next() is None
    assert not reader.buffer
    return request


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(bounds)]


STREAM = (
    "request=smtpd_access_policy\nsasl_username=ü\u2028x=1\nhelo_name=a\u0085b\n\n".encode()
    + b"\n"
    + b"request=smtpd_access_policy\nsender=\xff\xc3\x28\x00\n\n"
    + b"request=smtpd_access_policy\nno value"
)


def test_a_stream_cut_at_every_place_gives_the_same_requests() -> None:
    whole = read([STREAM])
    assert len(whole[0]) == 3
    assert whole[1]
    for place in range(len(STREAM) + 1):
        assert read([STREAM[:place], STREAM[place:]]) == whole


def test_a_stream_byte_by_byte_gives_the_same_requests() -> None:
    assert read(STREAM[i : i + 1] for i in range(len(STREAM))) == read([STREAM])


@given(
    st.lists(st.sampled_from([b"\n", b"\n\n", b"a=1", b"a=", b"=", b"b=\xc3", b"\xa4", b"\0", b"longer=value" * 3])),
    st.lists(st.integers(0, 500), max_size=8),
    st.integers(1, 60),
)
def test_no_cut_changes_what_is_read_nor_what_is_too_long(
    pieces: list[bytes], places: list[int], max_bytes: int
) -> None:
    stream = b"".join(pieces)
    assert read(cut(stream, places), max_bytes) == read([stream], max_bytes)


@given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=5))
def test_no_byte_is_lost_or_invented(stream: bytes, places: list[int]) -> None:
    """The same splitting, done in the simplest way on the whole stream."""
    expected, rest = [], stream
    while True:
        if rest.startswith(b"\n"):
            text, rest = b"", rest[1:]
        elif b"\n\n" in rest:
            text, rest = rest.split(b"\n\n", 1)
        else:
            break
        expected.append(repr(Request.of(text.decode("utf-8", "backslashreplace").replace("\0", "\\0"))))
    assert read(cut(stream, places)) == (expected, bool(rest))


def test_two_requests_in_one_write_are_two() -> None:
    reader = RequestReader(65536)
    assert [request["a"] for request in arrived(reader, b"a=1\n\na=2\n\na=3")] == ["1", "2"]
    assert reader.buffer
    request = reader.receive(b"\n\n")
    assert request is not None
    assert request["a"] == "3"
    assert not reader.buffer


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\r\x0b"])
def test_only_a_line_feed_ends_a_line(mark: str) -> None:
    value = f"a{mark}sasl_username=victim"
    request = one(f"helo_name={value}\nsasl_username=me\n\n".encode())
    assert request["helo_name"] == value
    assert request["sasl_username"] == "me"
    assert request.attributes == {"helo_name": value, "sasl_username": "me"}


def test_a_value_may_contain_equal_signs() -> None:
    request = one(b"sasl_username=a=b@x=\nsender==\n\n")
    assert request["sasl_username"] == "a=b@x="
    assert request["sender"] == "="


def test_of_a_repeated_attribute_the_first_counts() -> None:
    request = one(b"sasl_username=first\nsasl_username=second\n\n")
    assert request["sasl_username"] == request.attributes["sasl_username"] == "first"


def test_an_attribute_is_found_by_its_whole_name_only() -> None:
    request = one(b"xsender=1\nsender_x=2\nsender=3\nrecipient=sender=4\n\n")
    assert request["sender"] == "3"


def test_an_absent_or_empty_attribute_is_the_empty_text() -> None:
    request = one(b"sender=\nno separator\n\n")
    assert request["sender"] == request["recipient"] == request["no separator"] == ""
    assert request.attributes == {"sender": ""}


@given(st.lists(st.tuples(st.text("ab_", min_size=1, max_size=3), st.text("ab=\r\u2028ü", max_size=5)), max_size=6))
def test_access_by_name_and_the_list_of_attributes_agree(pairs: list[tuple[str, str]]) -> None:
    request = Request.of("\n".join(f"{name}={value}" for name, value in pairs))
    for name, value in request.attributes.items():
        assert request[name] == value
    assert set(request.attributes) == {name for name, _ in pairs}


@pytest.mark.parametrize("size", [255, 2048, 8900, 9 * 1024])
def test_long_logins_arrive_whole(size: int) -> None:
    login = "x" * size + "@example.com"
    stream = f"request=smtpd_access_policy\nsasl_username={login}\n\n".encode()
    assert one(stream)["sasl_username"] == login
    assert read(stream[i : i + 1448] for i in range(0, len(stream), 1448)) == read([stream])


def test_bad_utf8_is_escaped_even_when_it_is_split_over_reads() -> None:
    assert one(b"sender=\xff\xc3\n\n")["sender"] == "\\xff\\xc3"
    assert read([b"sender=\xc3", b"\xa4\n\n"]) == read(["sender=ä\n\n".encode()])


def test_a_nul_is_escaped() -> None:
    assert one(b"sender=a\0b\n\n")["sender"] == "a\\0b"


def test_an_empty_request_is_one_without_attributes() -> None:
    assert one(b"\n").attributes == {}
    assert read([b"\n\n\n"]) == ([repr(Request.of(""))] * 3, False)


def test_a_request_of_exactly_the_cap_is_read_at_any_cut() -> None:
    stream = b"a=" + b"x" * 65534 + b"\n\n"
    for place in (65535, 65536, 65537, 65538):
        found, partial = read([stream[:place], stream[place:]])
        assert len(found) == 1
        assert found[0] != TOO_LONG
        assert not partial


def test_a_request_of_one_byte_more_is_too_long_at_any_cut() -> None:
    stream = b"a=" + b"x" * 65535 + b"\n\n"
    for place in (0, 65535, 65536, 65537, 65538, 65539):
        assert read([stream[:place], stream[place:]])[0] == [TOO_LONG]


def test_an_endless_line_is_too_long_as_soon_as_it_is_over_the_cap() -> None:
    reader = RequestReader(max_bytes=4096)
    for _ in range(4):
        assert reader.receive(b"x" * 1024) is None
    with pytest.raises(RequestTooLong, match="4096"):
        reader.receive(b"x")


def test_whole_requests_before_one_that_is_too_long_are_given_out() -> None:
    assert read([b"a=1\n\n" + b"x" * 100], max_bytes=20)[0] == ["Request({'a': '1'})", TOO_LONG]


@pytest.mark.parametrize(
    ("sent", "default_domain", "login"),
    [
        ("alice", "", "alice"),
        ("alice", "example.com", "alice@example.com"),
        ("alice@other.org", "example.com", "alice@other.org"),
        (" \talice ", "example.com", "alice@example.com"),
        ("", "example.com", ""),
        (" ", "example.com", ""),
        ("Älice", "", "Älice"),
    ],
)
def test_the_login_has_no_outer_blanks_and_gets_the_default_domain(sent: str, default_domain: str, login: str) -> None:
    assert one(f"sasl_username={sent}\n\n".encode(), default_domain).login == login


def test_the_cap_holds_for_a_whole_request_in_postfix_s_order() -> None:
    names = [
        "request",
        "protocol_state",
        "protocol_name",
        "client_address",
        "client_name",
        "reverse_client_name",
        "helo_name",
        "sender",
        "recipient",
        "recipient_count",
        "queue_id",
        "instance",
        "size",
        "etrn_domain",
        "sasl_method",
        "sasl_username",
    ]
    stream = "".join(f"{name}=x\n" for name in names).encode() + b"\n"
    cap = len(stream) - 2
    assert len(read([stream], cap)[0]) == 1
    assert read([stream], cap)[0] != [TOO_LONG]
    assert read([stream], cap - 1)[0] == read([stream[:50], stream[50:]], cap - 1)[0] == [TOO_LONG]
