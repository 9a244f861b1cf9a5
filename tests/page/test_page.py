"""The page: its numbers are those of the answer, its texts are texts, and it can load nothing."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimitd.ctl.answers import Day, Replayed
from ratelimitd.ctl.page.content import MAX_ROWS, moment, percent
from ratelimitd.ctl.page.render import html
from ratelimitd.ctl.page.replayed import of_replay
from ratelimitd.text import escape
from tests.page.reading import Element, read, rows
from tests.page.samples import HOSTILE, limit, month, replayed


def page(answer: Replayed) -> Element:
    return read(html(of_replay(answer)))


def table(of: Element, caption: str) -> list[list[str]]:
    (found,) = [each for each in of.all("table") if caption in each.all("caption")[0].text]
    return rows(found)


def test_the_numbers_of_a_limit_are_exact() -> None:
    uses = [*range(1, 1001)]
    found = page(replayed([limit("daily", uses, 500, ["alice@example.com", "bob@example.com"])]))
    tiles = [[part.text for part in tile.all() if part.tag != "br"] for tile in found.all("main")[0].all("li")]
    assert tiles == [
        ["500", "configured: refuses 2 of 1,000 accounts", "3 of 500,500 recipients, under 0.01 %"],
        ["990", "would refuse 1 % of accounts", "10 of 1,000 at most"],
        ["999", "would refuse 0.1 % of accounts", "1 of 1,000 at most"],
        ["1,000", "would refuse nobody", "what the busiest needed"],
    ]
    assert table(found, "no more than so much") == [
        ["50 %", "500"],
        ["90 %", "900"],
        ["99 %", "990"],
        ["100 %", "1,000"],
    ]
    assert table(found, "accounts by the most")[-3:] == [
        ["501–630", "130", "130", "370", "37 %"],
        ["631–800", "170", "170", "200", "20 %"],
        ["801–1,000", "200", "200", "0", "0 %"],
    ]
    assert table(found, "Whom limit daily refused") == [
        ["alice@example.com", "2", "2026-11-01 12:00", "1,000"],
        ["bob@example.com", "1", "2026-11-02 12:00", "1,001"],
    ]


def test_the_numbers_of_the_log_and_its_days_are_exact() -> None:
    found = page(replayed())
    head = found.all("header")[0].text
    assert all(text in head for text in ("4,321", "98,765", "123,456", "2 of them unreadable"))
    assert "2026-11-01 00:00 to 2026-11-30 23:59" in head
    assert table(found, "in each day")[28:] == [
        ["2026-11-29", "290", "2", "29"],
        ["2026-11-30", "300", "0", "30"],
    ]
    assert "  7: x" in found.all("pre")[0].text


def test_a_picture_has_a_name_a_text_and_a_table_of_its_numbers() -> None:
    found = page(month())
    figures = found.all("figure")
    assert len(figures) == 4
    for figure in figures:
        for svg in figure.all("svg"):
            title, text = svg.all("title")[0], svg.all("desc")[0]
            assert svg.attributes["role"] == "img"
            assert svg.attributes["aria-labelledby"] == title.attributes["id"]
            assert svg.attributes["aria-describedby"] == text.attributes["id"]
            assert title.text
            assert "The numbers are in the table." in text.text
        assert figure.all("details")[0].all("table")


def test_bars_are_those_of_the_histogram_and_lines_those_of_the_numbers() -> None:
    uses = [1] * 60 + [7] * 30 + [100] * 10
    found = page(replayed([limit("daily", uses, 50)], days=[]))
    broad, narrow = found.all("svg")
    for svg in (broad, narrow):
        assert [bar.text for bar in svg.all("rect")] == [
            "1 recipients: 60 windows", "7–8 recipients: 30 windows", "81–100 recipients: 10 windows",
        ]  # fmt: skip
        labels = {label.text for label in svg.all(class_="label")}
        assert labels == {"half ≤ 1", "90 % ≤ 7", "all ≤ 100", "quota 50", "none at 100"}
        quota, bar = svg.all("line", "quota")[0], svg.all("rect")[-1]
        assert float(quota.attributes["x1"]) < float(bar.attributes["x"])


def test_a_quota_that_nobody_comes_near_stands_at_the_edge() -> None:
    found = page(replayed([limit("daily", [1, 2, 3], 10**9)], days=[]))
    svg = found.all("svg")[0]
    assert "quota 1,000,000,000 →" in svg.text
    assert all(float(line.attributes["x1"]) <= 800 for line in svg.all("line"))


def test_a_limit_that_nobody_has_used_says_so_and_has_no_picture() -> None:
    found = page(replayed([limit("daily", [])], days=[]))
    assert "Nobody has sent anything that it counts." in found.text
    assert found.all("svg") == found.all("table") == []


def test_a_log_without_mail_has_a_page() -> None:
    found = page(replayed([limit("daily", [])], from_=None, to=None, days=[], remarks=[], unreadable=0))
    assert "No line of it is one of a mail log." in found.text
    assert "Every line could be read." in found.text


def test_what_a_limit_counts_and_whether_it_is_enforced_is_said() -> None:
    found = page(replayed([limit(period="message", counts="messages", enforced=False, keys=["alice"])]))
    assert "Counts the messages of an account in one message. It is not enforced" in found.text
    assert "Whom limit daily would refuse" in found.text


def test_many_accounts_are_cut_and_it_says_how_many_there_are() -> None:
    found = page(replayed([limit(keys=[f"a{i}@example.com" for i in range(MAX_ROWS + 3)])]))
    assert len(table(found, "Whom limit")) == MAX_ROWS
    assert f"These {MAX_ROWS} of {MAX_ROWS + 3} most; --json has {MAX_ROWS + 3}." in found.text


def test_years_of_days_are_a_picture_of_months_and_hostile_years_one_of_centuries() -> None:
    def of(*dates: str) -> list[list[str]]:
        sent = [Day(day=date, messages=1, recipients=10, refused_recipients=0) for date in dates]
        return table(page(replayed(days=sent)), "What was sent in each")

    assert [row[0] for row in of("2026-08-05", "2026-11-12")] == ["2026-08-05", "2026-11-12"]
    assert [row[0] for row in of("2026-08-04", "2026-11-12")] == ["2026-08-03", "2026-11-09"]
    assert [row[0] for row in of("2020-02-29", "2026-11-12", "2026-11-30")] == ["2020-02-01", "2026-11-01"]
    assert [row[1] for row in of("2020-02-29", "2026-11-12", "2026-11-30")] == ["10", "20"]
    assert [row[0] for row in of("1950-02-28", "2026-11-12")] == ["1950-01-01", "2026-01-01"]
    assert [row[0] for row in of("1970-01-01", "9999-12-31")] == ["1900-01-01", "9900-01-01"]
    assert [row[0] for row in of("0001-01-01", "0950-01-01")] == ["0001-01-01", "0950-01-01"]
    assert [row[0] for row in of("0001-01-01", "9999-12-31")] == ["0001-01-01", "9900-01-01"]


def test_every_heading_column_and_id_is_one() -> None:
    found = page(month())
    ids = Counter(each.attributes["id"] for each in found.all() if "id" in each.attributes)
    assert set(ids.values()) == {1}
    (root,) = found.all("html")
    assert root.attributes["lang"] == "en"
    assert len(found.all("h1")) == len(found.all("main")) == 1
    for each in found.all("table"):
        assert each.all("caption")
        assert {heading.attributes["scope"] for heading in each.all("th")} == {"col"}


def test_the_page_names_no_address_and_its_policy_allows_it_nothing() -> None:
    text = html(of_replay(month()))
    found = read(text)
    assert re.findall(r"(?i)\b(?:https?|ftp|wss?|file):|url\(|@import|//[a-z0-9-]+\.", text) == []
    linking = [each for each in found.all() if {"src", "href", "action", "style"} & set(each.attributes)]
    assert [each.attributes for each in linking] == [{"rel": "icon", "href": "data:,"}]
    (policy,) = [
        each.attributes["content"]
        for each in found.all("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]+='; script-src 'sha256-[\w+/]+='; img-src data:; "
        r"base-uri 'none'; form-action 'none'", policy,
    )  # fmt: skip
    assert not [name for each in found.all() for name in each.attributes if name.startswith("on")]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_key_is_shown_and_is_no_element(text: str) -> None:
    _is_text(text)


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from([*"<>\"'&/=`-! \n\0\u202e", "script", "style", "{{", "]]>"])).map("".join)
)
def test_no_text_ever_makes_an_element(text: str) -> None:
    _is_text(text)


def _is_text(text: str) -> None:
    """Wherever a text stands, the page has the same elements as with another text, and it is read as it is."""

    def with_text(shown: str) -> Element:
        return page(replayed([limit(shown, keys=[shown])], remarks=[shown], days=[]))

    found, plain = with_text(text), with_text("plain")
    ours = [(each.tag, sorted(each.attributes)) for each in found.all() if each.tag != "wbr"]
    assert ours == [(each.tag, sorted(each.attributes)) for each in plain.all() if each.tag != "wbr"]
    assert found.all("pre")[0].text.rstrip("\n") == escape(text).rstrip("\n")
    (shown,) = [cell.text for cell in found.all("td", "key")]
    assert shown == escape(text) or shown.endswith(f"({len(text)} characters)")
    assert found.all("script")[-1].text == plain.all("script")[-1].text
    assert all(c.isprintable() or c == "\n" for c in found.all("main")[0].text)


def test_shares_are_rounded_but_never_to_nothing_or_all() -> None:
    assert [percent(part, 100_000) for part in (0, 1, 12, 123, 1234, 12_345, 99_999, 100_000)] == [
        "0 %", "under 0.01 %", "0.012 %", "0.12 %", "1.2 %", "12 %", "over 99 %", "100 %",
    ]  # fmt: skip


def test_times_are_sorted_by_when_they_are_and_not_by_how_they_are_written() -> None:
    earlier, later = moment("2026-10-25T02:30:00+02:00"), moment("2026-10-25T02:10:00+01:00")
    assert earlier.text > later.text
    assert earlier.order < later.order  # type: ignore[operator]
