"""Replies to Postfix: one well-formed action each (access(5), "ACCEPT/REJECT ACTIONS").

What may be sent is a short list. OK and PERMIT are not on it: before reject_unauth_destination they make an open
relay. Neither are digits alone or an empty action, which Postfix takes for PERMIT.
"""

import re
from string import Formatter

from ratelimitd.errors import RatelimitdError

MAX_BYTES = 200
"""Postfix cuts or garbles longer texts; ASCII only, since a bad byte makes it answer 451 by itself."""

PLACEHOLDERS = ("used", "quota", "key", "period", "reset")
ALLOWED = (
    "DUNNO, 4NN TEXT, 5NN TEXT, or REJECT, DEFER, DEFER_IF_PERMIT, DEFER_IF_REJECT, HOLD, DISCARD, WARN, INFO "
    "with or without a text, in printable ASCII"
)

_ACTION = re.compile(
    r"(?:dunno|[45][0-9][0-9] +[^ ].*|(?:reject|defer|defer_if_permit|defer_if_reject|hold|discard|warn|info)(?: .*)?)",
    re.IGNORECASE,
)
_UNPRINTABLE = re.compile(r"[^ -~]")


class ActionError(RatelimitdError):
    """Not an action that Postfix can be given; its text says what is allowed."""


def reply(action: str) -> bytes:
    """The bytes of a reply: whatever the text is, one line, printable ASCII, at most 200 bytes of it, single blanks."""
    text = " ".join(_UNPRINTABLE.sub("?", action).split())
    return b"action=" + text.encode("ascii")[:MAX_BYTES].rstrip() + b"\n\n"


DUNNO = reply("DUNNO")


class Template:
    """An action whose text may use {used} {quota} {key} {period} {reset}; checked when made (ActionError)."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        if _UNPRINTABLE.search(self.text) or not _ACTION.fullmatch(self.text):
            raise ActionError(ALLOWED)
        if len(self.text) > MAX_BYTES:
            raise ActionError(f"at most {MAX_BYTES} bytes")
        if not _ACTION.fullmatch(self._literal()):
            raise ActionError("a text of its own beside the placeholders: a code alone means PERMIT to Postfix")

    def _literal(self) -> str:
        """The text with every placeholder empty; raises ActionError for one that does not exist."""
        placeholders = "{" + "} {".join(PLACEHOLDERS) + "}"
        literal = ""
        try:
            for part, name, spec, conversion in Formatter().parse(self.text):
                literal += part
                if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                    raise ActionError(f"the placeholders {placeholders}")
        except ValueError as error:
            raise ActionError(f"the placeholders {placeholders}; a brace itself is {{{{ or }}}}") from error
        return literal

    def render(self, *, used: int, quota: int, key: str, period: str, reset: str) -> bytes:
        """The reply's bytes with the placeholders filled in."""
        return reply(self.text.format(used=used, quota=quota, key=key, period=period, reset=reset))

    @property
    def fixed(self) -> bytes:
        """The reply's bytes with the placeholders left empty: for a request that nothing is known of."""
        return self.render(used=0, quota=0, key="", period="", reset="")
