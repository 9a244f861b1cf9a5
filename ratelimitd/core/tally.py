"""Requests that no limit applied to, counted by why: what tells an administrator that Postfix is wired wrongly."""


class Tally:
    """Counts since the start."""

    __slots__ = ("other_states", "without_key", "without_login")

    def __init__(self) -> None:
        self.other_states = 0  # at CONNECT, EHLO, MAIL, VRFY, ...: nothing is counted there
        self.without_login = 0  # at RCPT, DATA, END-OF-MESSAGE, but nobody has logged in
        self.without_key = 0  # somebody has logged in

    def skip(self, *, logged_in: bool) -> None:
        """Count a request at RCPT, DATA or END-OF-MESSAGE."""
        if logged_in:
            self.without_key += 1
        else:
            self.without_login += 1
