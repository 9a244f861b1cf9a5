"""The protocol: bytes in, requests out, whatever they are and wherever they are cut."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.errors import NotPostfix, RequestTooLong
from ratelimitd.logins import LoginRules
from ratelimitd.request import Request, RequestReader
from tests.core.build import arrived

TOO_LONG = "too long"
NOT_POSTFIX = "not Postfix"


def read(parts: Iterable[bytes], max_bytes: int = 65536) -> tuple[list[str], bool]:
    """What a reader makes of a stream that arrives in these parts: the requests, and whether bytes are left."""
    reader = RequestReader(max_bytes)
    found: list[str] = []
    for part in parts:
        try:
            found += map(repr, arrived(reader, part))
        except RequestTooLong:
            return [*found, TOO_LONG], True
        except NotPostfix:
            return [*found, NOT_POSTFIX], True
    return found, bool(reader.buffer)


def one(data: bytes, default_domain: str = "") -> Request:
    reader = RequestReader(65536, LoginRules(default_domain))
    request = reader.receive(data)
    assert request is not None
    assert reader.next() is None
    assert not reader.buffer
    return request


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(bounds)]


def first_is_refused(stream: bytes, max_bytes: int = 65536) -> bool:
    """Whether a stream begins as Postfix's does not, done in the simplest way: a byte more at a time."""
    for size in range(1, min(len(stream), max_bytes + 1) + 1):
        *whole, begun = stream[:size].split(b"\n")
        if b"" in whole[1:]:
            return False
        if any(b"=" not in line or line.endswith(b"\r") for line in whole):
            return True
        name = begun.partition(b"=")[0]
        if any(byte <= 32 or byte >= 127 for line in [*whole, name] for byte in line.partition(b"=")[0]):
            return True
    return False


STREAM = (
    "request=smtpd_access_policy\nsasl_username=ü\u2028x=1\nhelo_name=a\u0085b\n\n".encode()
    + b"\n"
    + b"request=smtpd_access_policy\nsender=\xff\xc3\x28\x00\n\n"
    + b"request=smtpd_access_policy\nno value\r\n"
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
    st.lists(
        st.sampled_from(
            [
                b"\n",
                b"\n\n",
                b"a=1",
                b"a=",
                b"=",
                b"b=\xc3",
                b"\xa4",
                b"\0",
                b"\r",
                b"\r\n",
                b"x y",
                b"longer=value" * 3,
            ]
        )
    ),
    st.lists(st.integers(0, 500), max_size=8),
    st.integers(1, 60),
)
def test_no_cut_changes_what_is_read_nor_what_is_too_long(
    pieces: list[bytes], places: list[int], max_bytes: int
) -> None:
    stream = b"".join(pieces)
    assert read(cut(stream, places), max_bytes) == read([stream], max_bytes)


@given(
    st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"a=b\n\n" + data),
    st.lists(st.integers(0, 500), max_size=5),
)
def test_no_byte_is_lost_or_invented(stream: bytes, places: list[int]) -> None:
    """The same splitting, done in the simplest way on the whole stream."""
    expected, rest = [], stream
    if first_is_refused(stream):
        assert read(cut(stream, places)) == ([NOT_POSTFIX], True)
        return
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
    request = Request.of("sender=\nno separator\n")
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
    assert one(b"sender=a\0b\n\n")["sender"] == "a\\x00b"


def test_an_empty_request_is_one_without_attributes() -> None:
    reader = RequestReader(65536)
    assert [request.attributes for request in arrived(reader, b"a=b\n\n\n")] == [{"a": "b"}, {}]
    assert read([b"a=b\n\n\n\n"]) == (["Request({'a': 'b'})", *[repr(Request.of(""))] * 2], False)


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


STRANGERS = {
    "an HTTP form": b"POST / HTTP/1.1\r\nHost: 127.0.0.1:10032\r\nContent-Length: 120\r\n\r\n",
    "an HTTP query": b"GET /?request=smtpd_access_policy HTTP/1.1\r\n",
    "an HTTP upload": b"PUT /request=smtpd_access_policy HTTP/1.1\r\n",
    "HTTP without CR": b"POST /?a=b HTTP/1.0\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method of one's own": b"request=smtpd_access_policy / HTTP/1.1\r\n",
    "a TLS ClientHello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(128, 160)),
    "SMTP": b"EHLO client.example.net\r\n",
    "SMTP with an equal sign": b"MAIL FROM:<a=b@example.com>\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "redis, inline": b"SET sasl_username=alice 1\n",
    "memcached": b"stats\r\n",
    "the Perl daemon's dump": b"printshm\n",
    "a dictionary client": b"CLIENT libcurl 7.88.1\r\n",
    "the PROXY protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
    "the PROXY protocol, version 2": b"\r\n\r\n\0\r\nQUIT\n",
    "telnet": b"request=smtpd_access_policy\r\n",
    "an empty line": b"\n",
    "a control character": b"request\x1b=smtpd_access_policy\n",
}
CHARGED = b"request=smtpd_access_policy\nprotocol_state=DATA\nsasl_username=victim\nrecipient_count=1000000\n\n"


@pytest.mark.parametrize("begins", STRANGERS.values(), ids=STRANGERS)
def test_who_does_not_begin_as_postfix_is_refused_before_any_request_and_at_any_cut(begins: bytes) -> None:
    assert read([begins]) == ([NOT_POSTFIX], True)
    stream = begins + CHARGED
    for place in range(len(stream) + 1):
        assert read([stream[:place], stream[place:]]) == ([NOT_POSTFIX], True)
    assert read(stream[i : i + 1] for i in range(len(stream))) == ([NOT_POSTFIX], True)


def test_a_line_of_the_first_request_that_postfix_does_not_send_gives_none_of_it_out() -> None:
    usual = CHARGED[:-1]
    for line in (b"sender=a\r\n", b"sender\n", b" sender=a\n", b"\xc3\xa4=a\n"):
        assert read([usual + line + b"\n"]) == read([line + usual + b"\n"]) == ([NOT_POSTFIX], True)


def test_after_the_first_request_lines_may_be_anything() -> None:
    for line in (b"sender=a\r\n", b"sender\n", b" sender=a\n", b"\r\n", b"GET / HTTP/1.1\r\n"):
        found, left = read([CHARGED + line + CHARGED])
        assert (len(found), left) == (2, False)
        assert NOT_POSTFIX not in found


def test_the_refusal_quotes_nothing_of_what_was_sent() -> None:
    for data in (b"password\n", b"password=secret\r\n"):
        with pytest.raises(NotPostfix) as raised:
            RequestReader(65536).receive(data)
        assert "password" not in str(raised.value)


def test_a_first_request_that_trickles_is_looked_at_once() -> None:
    reader = RequestReader(1 << 20)
    assert reader.receive(b"a=\n" * 10_000 + b"name") is None
    assert reader._checked == len(reader.buffer)
    for _ in range(100):
        before = reader._checked
        assert reader.receive(b"x") is None
        assert reader._checked == before + 1


@given(
    st.sampled_from(["alice", "a.b", "", "@", "a b"]),
    st.lists(st.sampled_from(["", "@", "real.example", "Real.EXAMPLE", "other.example", "y0", "default.example"])),
    st.sampled_from(["", "default.example"]),
)
def test_a_login_counts_under_a_real_domain_or_as_its_local_part(local: str, parts: list[str], default: str) -> None:
    """However it is written, there are no more logins of one local part than there are real domains."""
    rules = LoginRules(default, ["real.example", "Other.Example"])
    sent = "@".join([local, *parts])
    login = rules.login(sent)
    if local.startswith("@") or not local:
        assert login == sent
        return
    assert login in {f"{local}@real.example", f"{local}@Other.Example", f"{local}@{default}" if default else local}
    assert rules.login(login) == login


@pytest.mark.parametrize(
    ("sent", "login"),
    [
        ("alice", "alice@real.example"),
        ("alice@real.example", "alice@real.example"),
        (" alice@REAL.example\t", "alice@real.example"),
        ("alice@two.example", "alice@two.example"),
        ("alice@y0.example", "alice@real.example"),
        ("alice@", "alice@real.example"),
        ("alice@@", "alice@real.example"),
        ("alice@two.example@y0.example", "alice@two.example"),
        ("alice@y0.example@two.example", "alice@two.example"),
        ("alice@\u212aeal.example", "alice@real.example"),
        ("@y0.example", "@y0.example"),
        ("@", "@"),
        ("", ""),
        (" ", ""),
    ],
)
def test_a_login_of_a_domain_that_is_not_real_is_its_local_part(sent: str, login: str) -> None:
    assert Request.of(f"sasl_username={sent}", "real.example", ["two.example"]).login == login


def test_without_domains_every_domain_is_one() -> None:
    for sent in ("alice@y0.example", "a@b@c", "@x", "@", "@x@"):
        assert Request.of(f"sasl_username={sent}", "real.example").login == sent


def test_an_empty_domain_is_none() -> None:
    for sent in ("alice@", "alice@@", " alice@ "):
        assert Request.of(f"sasl_username={sent}", "real.example").login == "alice@real.example"
        assert Request.of(f"sasl_username={sent}").login == "alice"
    assert Request.of("sasl_username=alice@a.example@", "real.example").login == "alice@a.example"
