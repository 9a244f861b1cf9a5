"""What is measured. Each section is a generator of rows; the names are what --only takes."""

from collections.abc import Callable, Iterator

from tests.bench.bench import Bench
from tests.bench.rows import Row
from tests.bench.sections.answers import idle, journal, logs, requests, throughput
from tests.bench.sections.costs import costs
from tests.bench.sections.counts import accounts, sliding, stall, stores
from tests.bench.sections.machine import disk, rest, start
from tests.bench.sections.mail import postfix

_ALL = (throughput, requests, logs, journal, stores, accounts, sliding, stall, disk, start, rest, idle, postfix, costs)
SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {section.__name__: section for section in _ALL}
SHORT = ("throughput", "requests", "journal", "stall", "idle")
