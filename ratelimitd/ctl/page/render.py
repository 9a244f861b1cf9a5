"""Content becomes HTML. The templates escape everything, and the page may run and load nothing but what is in it."""

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from ratelimitd import __version__
from ratelimitd.control.commands import Refused
from ratelimitd.ctl.page.content import Page
from ratelimitd.errors import install
from ratelimitd.text import escape

if TYPE_CHECKING:
    from jinja2 import Environment

_STYLE, _SCRIPT = "page.css", "page.js"


def check() -> None:
    """Raises Refused where a page cannot be made."""
    _templates()


def html(page: Page) -> str:
    """The text of the page. Raises Refused."""
    templates = _templates()
    style, script = (_source(templates, name) for name in (_STYLE, _SCRIPT))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    page_template = templates.get_template("page.html")
    return page_template.render(page=page, style=style, script=script, policy=policy, version=__version__)


@cache
def _templates() -> "Environment":
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # an extra
    except ImportError as error:
        wanted = 'the extra "report": ' + install('"ratelimitd[report]"')
        raise Refused(f"--html needs {wanted}") from error
    return Environment(
        loader=PackageLoader("ratelimitd.ctl.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _printable(value: object) -> object:
    """What is printed for a value: no text has controls or bidi marks, whosever it is. Our own HTML is Markup."""
    return escape(value) if type(value) is str else value


def _source(templates: "Environment", name: str) -> str:
    """Style or script, as it is in the page."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
