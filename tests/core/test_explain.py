"""msgspec's own texts, which config/explain.py takes apart: a release that words them otherwise fails here."""

from typing import Any

import msgspec
import pytest

from ratelimitd.settings import Settings

LIMIT = {"quota": 1}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"limit": [LIMIT], "nonsense": 1}, "Object contains unknown field `nonsense`"),
        ({"limit": [LIMIT], "server": {"a b": 1}}, "Object contains unknown field `a b` - at `$.server`"),
        ({}, "Object missing required field `limit`"),
        ({"limit": [LIMIT, {}]}, "Object missing required field `quota` - at `$.limit[1]`"),
        ({"limit": 5}, "Expected `array`, got `int` - at `$.limit`"),
        ({"limit": []}, "Expected `array` of length >= 1 - at `$.limit`"),
        ({"limit": [LIMIT], "store": {"port": -1}}, "Expected `int` >= 0 - at `$.store.port`"),
        ({"limit": [LIMIT | {"quotas": {"a": -1}}]}, "Expected `int` >= 0 - at `$.limit[0].quotas[...]`"),
        ({"limit": [LIMIT], "store": {"host": ["a", ""]}}, "Expected `str` of length >= 1 - at `$.store.host[1]`"),
    ],
)
def test_the_texts_that_an_explanation_is_made_of(data: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert(data, Settings)
    assert str(raised.value) == text
