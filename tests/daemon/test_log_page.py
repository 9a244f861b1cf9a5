"""contrib/doc/operations.md on the log: the fields in JSON, and logins as they were sent."""

import json
import re
from pathlib import Path

from tests.daemon.conftest import Start

PAGE = Path(__file__).parents[2] / "contrib" / "doc" / "operations.md"


def documented() -> list[str]:
    """The fields of a decision, in the order of the table."""
    chapter = PAGE.read_text(encoding="utf-8").partition("\n## The log\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", chapter, flags=re.MULTILINE)
    return re.findall(r"`(\w+)`", " ".join(rows))


def test_a_decision_in_json_has_the_documented_fields_and_no_others(start: Start) -> None:
    daemon = start(log={"format": "json"}, keys={"default_domain": "example.com"})
    with daemon.client() as client:
        client.ask("Alice")
    assert daemon.stop() == 0
    records = [json.loads(line) for line in daemon.log_file.read_text().splitlines()]
    (decision,) = (record for record in records if "status" in record)
    assert list(decision) == documented()
    assert (decision["sasl_username"], decision["key"]) == ("Alice", "alice@example.com")
    assert all(list(record)[:3] == ["time", "level", "event"] for record in records if record is not decision)
