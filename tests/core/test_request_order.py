"""Postfix's order of attributes is read in one match; it must make no difference to what is read."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.request import Request, RequestReader
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


def read(data: bytes) -> list[Request]:
    return list(arrived(RequestReader(65536), data))


def by_hand(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.replace("\0", "\\0").split("\n"):
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
    (request,) = read(text.encode() + b"\n")
    expected = by_hand(text)
    assert {name: request[name] for name in POSTFIX_ORDER} == {name: expected.get(name, "") for name in POSTFIX_ORDER}


@given(st.lists(values, min_size=len(POSTFIX_ORDER), max_size=len(POSTFIX_ORDER)), lines, st.integers(0, 29))
def test_lines_that_do_not_belong_change_nothing_but_what_they_say(
    some: list[str], strange: list[str], at: int
) -> None:
    usual = [f"{name}={value}" for name, value in zip(POSTFIX_ORDER, some, strict=True)]
    text = "\n".join([*usual[:at], *[f"{line}=x" for line in strange], *usual[at:]]) + "\n"
    (request,) = read(text.encode() + b"\n")
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
