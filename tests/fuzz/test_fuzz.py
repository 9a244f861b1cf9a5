"""The short run: every file of the corpus, and a few hundred mutations of them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, corpus

MUTATIONS = 300
PIECES = (b"", b"\n", b"\n\n", b"=", b"\0", b"\xff", b"\xe2\x80\xa8", b"a" * 700, b'"', b"[", b"9" * 5000, b"\x1b[31m")


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_read_as_it_must_be(target: str) -> None:
    files = corpus(target)
    assert len(files) >= 5
    for data in files:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_the_corpus_are_read_as_they_must_be(target: str) -> None:
    chosen, files = random.Random(target), corpus(target)
    for _ in range(MUTATIONS):
        data = chosen.choice(files)
        for _ in range(chosen.randint(1, 4)):
            data = _mutated(data, files, chosen)
        TARGETS[target](data)


def _mutated(data: bytes, files: list[bytes], chosen: random.Random) -> bytes:
    """A byte changed, a piece put in, a part left out or doubled, or the end of another file."""
    start, end = sorted((chosen.randint(0, len(data)), chosen.randint(0, len(data))))
    match chosen.randrange(5):
        case 0:
            return data[:start] + bytes([chosen.randrange(256)]) + data[start + 1 :]
        case 1:
            return data[:start] + chosen.choice(PIECES) + data[start:]
        case 2:
            return data[:start] + data[end:]
        case 3:
            return data[:end] + data[start:]
        case _:
            other = chosen.choice(files)
            return data[:start] + other[chosen.randint(0, len(other)) :]


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=50)
@given(data=st.binary(max_size=3000))
def test_random_bytes_are_read_as_they_must_be(target: str, data: bytes) -> None:
    TARGETS[target](data)


lines = st.tuples(
    st.sampled_from(["request", "protocol_state", "instance", "recipient", "sasl_username", "recipient_count", "x"]),
    st.sampled_from(["smtpd_access_policy", "RCPT", "DATA", "END-OF-MESSAGE", "1", "99999999999"])
    | st.text(max_size=20).map(lambda text: text.replace("\n", "")),
).map("=".join)


@settings(max_examples=150)
@given(cut=st.integers(0, 255), requests=st.lists(st.lists(lines, min_size=1, max_size=12), max_size=4))
def test_requests_of_every_form_are_read_as_they_must_be(cut: int, requests: list[list[str]]) -> None:
    head = "request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username=alice\n"
    stream = "".join(head + "\n".join(request) + "\n\n" for request in requests)
    TARGETS["request"](bytes([cut]) + stream.encode("utf-8", "surrogatepass"))
