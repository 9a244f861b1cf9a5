"""A `[[notify]]` of the configuration, checked; targets.py delivers to it."""

import hashlib
import json
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec

from ratelimitd.errors import ConfigError, install, shown
from ratelimitd.net.credentials import Credentials
from ratelimitd.settings import NotifySettings

INSTALL_HTTPX = 'the extra "notify" for webhooks: ' + install('"ratelimitd[notify]"')


@dataclass(frozen=True, slots=True)
class Notify:
    """A `[[notify]]`, checked: at which percentages of quota, of the limits of which names, it is notified, and how."""

    at: tuple[int, ...]
    limits: tuple[str, ...]
    command: tuple[str, ...] = field(repr=False)
    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    tls: "ssl.SSLContext"
    timeout_s: float
    retries: int
    max_waiting: int

    @property
    def id(self) -> str:
        """The target's name in the ledger: it stays when the order of the file changes."""
        return hashlib.sha256(json.dumps([self.command, self.url]).encode()).hexdigest()[:16]


def checked(where: str, settings: NotifySettings, limits: list[str], credentials: Credentials) -> Notify:
    """Check a `[[notify]]`: `where` is its place in the file, `limits` are the names of those with accounts.

    Raises ConfigError.
    """
    if bool(settings.command) == bool(settings.url):
        found = "both command and url" if settings.url else "neither command nor url"
        raise ConfigError(where, found, 'one of command = ["/a/program"] and url = "https://..."')
    for i, name in enumerate(settings.limits):
        if name not in limits:
            raise ConfigError(
                f"{where}.limits[{i}]", f'"{name}"', "the name of a [[limit]] with accounts: " + ", ".join(limits)
            )
    if settings.url:
        _check_url(f"{where}.url", settings.url)
    return Notify(
        tuple(settings.at),
        tuple(settings.limits or limits),
        tuple(settings.command),
        settings.url,
        _secret(where, settings, credentials),
        credentials.tls(f"{where}.tls_ca", settings.tls_ca),
        settings.timeout_s,
        settings.retries,
        settings.max_waiting,
    )


def _check_url(where: str, url: str) -> None:
    if find_spec("httpx") is None:
        raise ConfigError(where, "an installation without httpx", INSTALL_HTTPX)
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:  # its text quotes parts of the URL
        raise ConfigError(where, f"{_found(url)}: Invalid URL", "https://HOST/PATH") from error
    if parsed.scheme not in ("https", "http") or not parsed.host:
        raise ConfigError(where, _found(url), "https://HOST/PATH")


def _found(url: str) -> str:
    """What is shown of a wrong URL, which may have a password or a token in it."""
    return shown(url) if "://" in url else "a text that is no URL"


def _secret(where: str, settings: NotifySettings, credentials: Credentials) -> bytes:
    if settings.secret and settings.secret_file:
        raise ConfigError(where, "both secret and secret_file", "one of them")
    if not settings.secret_file:
        return settings.secret.encode()
    content = credentials.read(f"{where}.secret_file", settings.secret_file)
    if content is None:
        return b""
    if not content.strip():
        file = credentials.path(settings.secret_file)
        raise ConfigError(f"{where}.secret_file", f"{file}, which is empty", "a file with a secret in it")
    return content.strip()
