"""Content becomes HTML. The templates escape everything, and the page may run and load nothing but what is in it."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ratelimitd import __version__
from ratelimitd.control.commands import Refused
from ratelimitd.ctl.page.content import Figure, Page
from ratelimitd.errors import install
from ratelimitd.text import escape

if TYPE_CHECKING:
    from jinja2 import Environment

_OF_DRAWINGS = ("base.css", "drawing.css")
_OF_PAGES = (*_OF_DRAWINGS, "page.css")
_SCRIPTS = ("page.js",)


def check() -> None:
    """Read all that a page needs: afterwards this process may be a user who may not. Raises Refused."""
    templates = _templates()
    for name in templates.list_templates():
        templates.get_template(name)


def html(page: Page) -> str:
    """The text of the page. Raises Refused."""
    templates = _templates()
    style, script = (_source(templates, names) for names in (_OF_PAGES, _SCRIPTS))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    page_template = templates.get_template("page.html")
    return page_template.render(page=page, style=style, script=script, policy=policy, version=__version__)


def svg(figure: Figure) -> str:
    """The broad picture of a figure, as a file of its own. Raises Refused."""
    templates = _templates()
    style = _source(templates, _OF_DRAWINGS)
    template = templates.get_template("picture.svg")
    return template.render(of=figure.drawings[0], title=figure.title, text=figure.text, style=style)


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
        auto_reload=False,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _printable(value: object) -> object:
    """What is printed for a value: no text has controls or bidi marks, whosever it is. Our own HTML is Markup."""
    return escape(value) if type(value) is str else value


def _source(templates: "Environment", names: Sequence[str]) -> str:
    """Styles or scripts, as they are in the page."""
    return "".join([templates.get_template(name).render() for name in names])


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
