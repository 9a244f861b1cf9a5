"""The page of `ratelimitctl replay`: which quota to set, by a log."""

from ratelimitd.ctl.answers import Replayed
from ratelimitd.ctl.page import days, limits
from ratelimitd.ctl.page.content import Page, Section, Tile, moment
from ratelimitd.text import counted

_OF_DAYS = "Refused is what any limit refused, also one that is not enforced."


def of_replay(answer: Replayed) -> Page:
    """The content of its page."""
    sections = [limits.section(limit) for limit in answer.limits]
    if answer.days:
        sections.append(Section(title="Day by day", figures=[days.figure(answer.days, _OF_DAYS)]))
    sections.append(_lines(answer))
    return Page(
        verb="ratelimitctl replay",
        title="Which quota shall I set?",
        text=_period(answer),
        tiles=[
            Tile(f"{answer.messages:,}", "messages with a login"),
            Tile(f"{answer.recipients:,}", "recipients"),
            Tile(f"{answer.lines:,}", "lines read", f"{answer.unreadable:,} of them unreadable"),
        ],
        sections=sections,
    )


def _period(answer: Replayed) -> str:
    if answer.from_ is None or answer.to is None:
        return "No line of it is one of a mail log."
    begins, ends = (moment(time).text for time in (answer.from_, answer.to))
    return f"The configured limits, had they decided on the mail of {begins} to {ends}."


def _lines(answer: Replayed) -> Section:
    text = f"{counted(answer.unreadable, 'line')} could not be read, and {answer.lines - answer.unreadable:,} could."
    if not answer.remarks and not answer.unreadable:
        text = "Every line could be read."
    return Section(title="The log itself", text=text, lines=answer.remarks)
