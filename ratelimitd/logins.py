"""Which logins are one account, however a client writes them; of passwords and quotas nothing is known here.

A password check takes several ways of writing for one name: another domain, another case, blanks that its database
pads with. Each way that counted as an account of its own would be a quota more for whoever knows one password. Case is
no matter of logins alone: `keys.normalise` sees to it.
"""

import re
from collections.abc import Iterable

from ratelimitd.text import lower

UNREADABLE = "?"
"""What all names that are not in ASCII count as, with `keys.ascii`."""

_AROUND_AT = re.compile(r"[ \t]*@[ \t]*")
_NOT_ASCII = re.compile(r"[^ -~]|\\x(?:00|[89a-f][0-9a-f])")  # so `read` gives bytes that are not UTF-8

_IGNORED = {"Mn", "Me", "Cf", "Cc"}  # marks, and what is not seen


def plain(login: str) -> str:
    """A login as a database sees it that ignores case, accents and invisible characters, as collations of MySQL do."""
    import unicodedata  # a megabyte, which a daemon takes only when doctor asks

    letters = [c for c in unicodedata.normalize("NFKD", login) if unicodedata.category(c) not in _IGNORED]
    return "".join(letters).lower()


def _ascii(name: str) -> str:
    return UNREADABLE if _NOT_ASCII.search(name) else name


class LoginRules:
    """Which logins are one account: `keys.default_domain`, `keys.domains` and `keys.ascii`."""

    __slots__ = ("_domains", "ascii_only", "default_domain")

    def __init__(self, default_domain: str = "", domains: Iterable[str] = (), ascii_only: bool = False) -> None:
        self.default_domain = default_domain
        self.ascii_only = ascii_only
        self._domains = {lower(domain): domain for domain in domains}
        if self._domains and default_domain:
            self._domains.setdefault(lower(default_domain), default_domain)

    def login(self, username: str) -> str:
        """The login of a sasl_username: without blanks around its parts, with the domain that it counts under.

        A database that pads with blanks (MySQL's) finds alice's name in `alice @a.domain`.

        Where domains are configured, a login of another one is its local part. That is what precedes the first @, and
        of several domains the last real one counts: password checks differ in where they cut `a@b@c`, and no way of
        writing a login may give it a quota of its own. A login without a local part stays as it is, and counts. An
        empty domain, as in `a@`, is none. With `keys.ascii` all names that are not in ASCII are one in each domain.
        """
        login = username.strip(" \t")
        if " " in login or "\t" in login:
            login = _AROUND_AT.sub("@", login)
        login = self._of_domain(login)
        if not self.ascii_only or (login.isascii() and login.isprintable() and "\\" not in login):
            return login
        return self._in_ascii(login)

    def _in_ascii(self, login: str) -> str:
        local, at, domain = login.rpartition("@")
        real = domain == self.default_domain or lower(domain) in self._domains
        return _ascii(local) + at + (domain if at and real else _ascii(domain))

    def _of_domain(self, login: str) -> str:
        if self._domains and "@" in login:
            local, _, domains = login.partition("@")
            if not local:
                return login
            for domain in reversed(domains.split("@")):
                real = self._domains.get(lower(domain))
                if real is not None:
                    return f"{local}@{real}"
            login = local
        elif login.endswith("@") and not login.startswith("@"):
            login = login.rstrip("@")
        if self.default_domain and login and "@" not in login:
            return login + "@" + self.default_domain
        return login


AS_SENT = LoginRules()
"""Every login is an account of its own."""
