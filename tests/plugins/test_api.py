"""The API of key plugins: which names it has, and that the examples in its docstrings are true."""

import doctest
from types import ModuleType

import pytest

from ratelimitd import keys, request, testing

API = {
    keys: {"KeyFactory", "KeyFunction", "OptionError", "domain", "email", "everybody", "normalise", "of_login", "only"},
    request: {"POLICY_REQUEST", "Request"},
    testing: {"ATTRIBUTES", "REQUESTS", "check_key", "request"},
}
EXAMPLES = [test for module in API for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


@pytest.mark.parametrize("module", API)
def test_the_names_of_the_api(module: ModuleType) -> None:
    assert set(module.__all__) == API[module]
    for name in API[module]:
        assert getattr(module, name).__doc__


@pytest.mark.parametrize("name", ["shown", "UNKNOWN", "shorten", "MAX_BYTES"])
def test_what_is_internal_is_not_in_keys(name: str) -> None:
    assert not hasattr(keys, name)


def test_each_part_of_the_contract_has_an_example() -> None:
    names = {test.name.removeprefix("ratelimitd.") for test in EXAMPLES}
    assert names >= {"keys", "keys.KeyFunction", "keys.KeyFactory", "keys.OptionError", "keys.of_login", "keys.only"}
    assert names >= {"keys.normalise", "request.Request", "testing.request", "testing.check_key"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_shows(example: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert "".join(said) == ""
