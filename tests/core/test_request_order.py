"""Postfix's order of attributes is read in one match; it must make no difference to what is read."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.errors import NotPostfix
from ratelimitd.request import Request, RequestReader
from ratelimitd.text import read as escaped
from tests.core.build import arrived

POSTFIX_ORDER = [
    "request",
    "protocol_state",
    "protocol_name",
    "client_address",
    "client_name",
    "client_port",
    "reverse_client_name",
    "server_address",
    "server_port",
    "helo_name",
    "sender",
    "recipient",
    "recipient_count",
    "queue_id",
    "instance",
    "size",
    "etrn_domain",
    "stress",
    "sasl_method",
    "sasl_username",
    "sasl_sender",
    "ccert_subject",
    "ccert_issuer",
    "ccert_fingerprint",
    "ccert_pubkey_fingerprint",
    "encryption_protocol",
    "encryption_cipher",
    "encryption_keysize",
    "policy_context",
]

values = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12)
lines = st.lists(st.sampled_from(POSTFIX_ORDER) | values, max_size=4)


FIRST = b"request=smtpd_access_policy\n\n"


def read(data: bytes) -> list[Request]:
    """The requests of a connection that has begun as Postfix does."""
    first, *others = arrived(RequestReader(65536), FIRST + data)
    assert first.attributes == {"request": "smtpd_access_policy"}
    return others


def read_apart(data: bytes) -> list[Request]:
    """The same, where they arrive by themselves."""
    reader = RequestReader(65536)
    assert reader.receive(FIRST) is not None
    return list(arrived(reader, data))


def by_hand(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in escaped(text.encode()).split("\n"):
        name, separator, value = line.partition("=")
        if separator:
            found.setdefault(name, value)
    return found


@given(st.lists(values, min_size=len(POSTFIX_ORDER), max_size=len(POSTFIX_ORDER)), st.sets(st.integers(0, 28)))
def test_every_attribute_reads_the_same_whatever_is_left_out(some: list[str], left_out: set[int]) -> None:
    kept = [(name, value) for i, (name, value) in enumerate(zip(POSTFIX_ORDER, some, strict=True)) if i not in left_out]
    text = "".join(f"{name}={value}\n" for name, value in kept)
    if not text:
        return
    (request,) = read_apart(text.encode() + b"\n")
    expected = by_hand(text)
    assert {name: request[name] for name in POSTFIX_ORDER} == {name: expected.get(name, "") for name in POSTFIX_ORDER}
    (again,) = read(text.encode() + b"\n")
    assert again.attributes == request.attributes


@given(st.lists(values, min_size=len(POSTFIX_ORDER), max_size=len(POSTFIX_ORDER)), st.binary(max_size=3))
def test_a_first_request_in_postfix_s_order_is_checked_as_one_in_any_other(some: list[str], more: bytes) -> None:
    text = "".join(f"{name}={value}\n" for name, value in zip(POSTFIX_ORDER, some, strict=True)).encode()
    for data in (text + more + b"\n\n", text + b"\n"):
        found = []
        for parts in ([data], [data[:1], data[1:]]):
            reader = RequestReader(65536)
            try:
                found.append([request.attributes for part in parts for request in arrived(reader, part)])
            except NotPostfix:
                found.append([])
        assert found[0] == found[1]
        if any(value.endswith("\r") for value in some):
            assert found == [[], []]


@given(st.lists(values, min_size=len(POSTFIX_ORDER), max_size=len(POSTFIX_ORDER)), lines, st.integers(0, 29))
def test_lines_that_do_not_belong_change_nothing_but_what_they_say(
    some: list[str], strange: list[str], at: int
) -> None:
    usual = [f"{name}={value}" for name, value in zip(POSTFIX_ORDER, some, strict=True)]
    text = "\n".join([*usual[:at], *[f"{line}=x" for line in strange], *usual[at:]]) + "\n"
    (request,) = read_apart(text.encode() + b"\n")
    expected = by_hand(text)
    assert request.attributes == expected
    assert {name: request[name] for name in POSTFIX_ORDER} == {name: expected.get(name, "") for name in POSTFIX_ORDER}


def test_a_second_request_in_one_write_is_a_request_of_its_own() -> None:
    text = "".join(f"{name}=1\n" for name in POSTFIX_ORDER) + "\n"
    assert [request["policy_context"] for request in read((text * 3).encode())] == ["1", "1", "1"]


def test_a_repeated_login_behind_the_usual_attributes_does_not_count() -> None:
    text = "".join(f"{name}=1\n" for name in POSTFIX_ORDER) + "sasl_username=victim\n\n"
    (request,) = read(text.encode())
    assert request["sasl_username"] == "1"
