"""Key plugin `tenant`: the tenant that a login, or its domain, belongs to by a map in a TOML file."""

import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratelimitd.keys import KeyFunction, OptionError, of_login, only
from ratelimitd.request import Request

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def tenant(options: Mapping[str, Any]) -> KeyFunction:
    """The tenant of the SASL login: of the login itself, else of its domain. ASCII case makes no difference.

    Options: `map`, which must be given: the absolute path of the file, read at the start and at each reload;
    `others` (""), the tenant of every login that is not in it; "": such a login is not limited.
    """
    only(options, "map", "others")
    tenants = _read(options.get("map"))
    others = options.get("others", "")
    if not isinstance(others, str):
        raise OptionError("others", others, "a text")
    default = others.strip() or None

    @of_login
    def key(request: Request) -> str | None:
        login = request.login.translate(_LOWER)
        if not login:
            return None
        _, at, domain = login.rpartition("@")
        return tenants.get(login) or (tenants.get(domain) if at else None) or default

    return key


def _read(file: Any) -> dict[str, str]:
    """Tenants by login and by domain."""
    if not isinstance(file, str) or not Path(file).is_absolute():
        raise OptionError("map", file, "the absolute path of a TOML file")
    try:
        data = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError("map", f"{file}: {error.strerror}", "a file that can be read") from error
    except (ValueError, RecursionError) as error:
        raise OptionError("map", f"{file}: {error}", "TOML in UTF-8") from error
    tables = data.pop("tenants", None)
    if data or not isinstance(tables, dict):
        raise OptionError("map", file, "a file with the table [tenants], and nothing else")
    tenants: dict[str, str] = {}
    for name, members in tables.items():
        _add(tenants, f"{file}: tenants.{name}", name, members)
    return tenants


def _add(tenants: dict[str, str], where: str, name: str, members: Any) -> None:
    """Take the members of one tenant into the map."""
    if not name.strip() or not isinstance(members, list):
        raise OptionError("map", where, "a name, and for it a list of logins and domains")
    for member in members:
        text = member.strip().translate(_LOWER).removeprefix("@") if isinstance(member, str) else ""
        if not text.rpartition("@")[2]:
            raise OptionError("map", f"{where}: {member!r}", 'a login as "alice@example.com", or a domain')
        if text in tenants:
            raise OptionError("map", f"{where}: {member!r}, which {tenants[text]} has", "each login and domain once")
        tenants[text] = name
