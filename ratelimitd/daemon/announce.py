"""What the daemon says when it is ready: a line for the log, and on a terminal how to wire Postfix to it."""

import sys
from collections.abc import Sequence

from ratelimitd import __version__
from ratelimitd.config.read import Configuration
from ratelimitd.log.log import Log


def announce(config: Configuration, store: str, addresses: Sequence[str], log: Log) -> None:
    """Say where the daemon listens, and which store and limits are in force."""
    ready = f"ratelimitd {__version__} is ready"
    limits = [
        f"{limit.name}: {limit.quota or 'unlimited'} {limit.period.name} per {limit.key_name}"
        for limit in config.limits
    ]
    log.info(ready, listen=" ".join(addresses), store=store, limits="; ".join(limits))
    if sys.stderr.isatty():
        first = addresses[0] if addresses[0].startswith("unix:") else f"inet:{addresses[0]}"
        print(
            ready,
            *[f"  listening on  {address}" for address in addresses],
            f"  store         {store}",
            *[f"  limit         {limit}" for limit in limits],
            "  Postfix       in main.cf, then `postfix reload`:",
            "    smtpd_sender_restrictions = check_policy_service",
            f"        {{ {first}, timeout=10s, default_action=DUNNO }}",
            "  to stop       Ctrl-C",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
