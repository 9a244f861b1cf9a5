"""Makes which-quota.svg, the picture of README's "which quota shall I set?": `python contrib/doc/picture.py FILE`.

It is what `--html` draws of a limit, here of 1,400 accounts that are made up.
"""

import sys
from collections import Counter
from pathlib import Path
from statistics import NormalDist

from ratelimitd.ctl.answers import LimitUse
from ratelimitd.ctl.distribution import Distribution
from ratelimitd.ctl.page import limits, render

_ACCOUNTS, _DAYS, _QUOTA = 1400, 22, 500


def picture() -> str:
    """The picture: the logarithm of what accounts use is distributed normally."""
    numbers = NormalDist(2.3, 1.5)
    most = [int(2.72 ** numbers.inv_cdf((i + 0.5) / _ACCOUNTS)) + 1 for i in range(_ACCOUNTS)]
    windows = Counter(max(1, int(used / (1 + day) ** 0.4)) for used in most for day in range(_DAYS))
    found = Distribution(windows, Counter(most))
    limit = LimitUse(
        limit="daily", period="daily", window="fixed", counts="recipients", enforced=True, quota=_QUOTA,
        accounts=len(most), recipients=sum(used * count for used, count in windows.items()),
        refused_recipients=0, refused_accounts=0, refused=[], quantiles=found.quantiles(),
        quota_for=found.quota_for(), histogram=found.histogram(),
    )  # fmt: skip
    return render.svg(limits.figure(limit))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
