"""The line of a setting that is wrong, and what it is called."""

from pathlib import Path

import pytest

from ratelimitd.config import places
from ratelimitd.config import read as config
from ratelimitd.errors import ConfigError

LIMIT = "[[limit]]\nquota = 1\n"
WRONG = {
    "a value": ("\n# a comment\n[[limit]]\nquota = -1 # so\n", 4, 'limit "default".quota: found -1'),
    "the second limit, by its name": (
        f'{LIMIT}[[limit]]\nname = "burst"\nquota = "x"\n', 5, 'limit "burst".quota: found "x"',
    ),
    "a limit whose name is none": (f'{LIMIT}[[limit]]\nname = 5\nquota = 2\n', 4, "limit[1].name: found 5"),
    "what is missing, at its table": (f'{LIMIT}\n[[limit]]\nname = "b"\n', 4, 'limit "b".quota: found nothing'),
    "a list over lines": (
        f'{LIMIT}[server]\n\nallow = [\n  "::1", # one\n  "127.0.0.1/8",\n]\nunix_mode = "0660"\n',
        5,
        'server.allow[1]: found "127.0.0.1/8"',
    ),
    "a text over lines, with what looks like a setting in it": (
        f'{LIMIT}action = """450 4.7.1 x\\\n[server]\nunix_mode = 5\n"""\n[server]\nunix_mode = 5\n',
        8,
        "server.unix_mode: found 5",
    ),
    "a table in a line": (f"{LIMIT}quotas = {{a = 1, b = 'x'}}\n", 3, 'limit "default".quotas."b": found "x"'),
    "a quoted name with dots": (
        f'{LIMIT}[limit.quotas]\n"a@b.c" = 1\n"b@b.c" = -1\n', 5, 'limit "default".quotas."b@b.c": found -1',
    ),
    "dotted names": ("server.max_connections = 0\n" + LIMIT, 1, "server.max_connections: found 0"),
    "lines that end in CR LF": ("[[limit]]\r\nquota = 1\r\nperiod = 'x'\r\n", 3, 'limit "default".period: found "x"'),
    "a separator that ends no line of TOML": (
        "[[limit]]\nname = 'b' # \u2028\x0c\u0085\nquota = -1\n".replace("\x0c", ""), 3, 'limit "b".quota: found -1',
    ),
    "a quota for an account that has one": (
        f'{LIMIT}[limit.quotas]\n"a@b.c" = 1\n"A@b.c" = 2\n', 5, 'limit "default".quotas."A@b.c": found "A@b.c" again',
    ),
    "a column of the table": (f"{LIMIT}[store]\ntable = 't'\ncolumns.used = 'a b'\n", 5, 'store.columns."used"'),
    "behind the mark that some editors begin a file with": (f"\ufeff\n{LIMIT}key = 5", 4, 'limit "default".key: fo'),
    "what is no TOML": (f"{LIMIT}[log\n", 3, "syntax: found Expected ']' at the end of a table declaration"),
    "a list without an end": (f"{LIMIT}a = [\n", 3, "syntax: found Invalid value (at end of document)"),
    "a table twice": (f"[log]\n{LIMIT}[log]\n", 4, "syntax: found Cannot declare"),
    "single brackets": ("# x\n[limit]\nquota = 1\n", 2, "limit: found a table; allowed: [[limit]] in double brackets"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_the_line_and_the_name_are_said(tmp_path: Path, kind: str) -> None:
    text, line, words = WRONG[kind]
    file = tmp_path / "ratelimitd.toml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value).startswith(f"{file}:{line}: {words}")


def test_the_line_of_a_list_of_thousands_of_lines_is_said(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    names = "".join(f'  "@{number}.example",\n' for number in range(5_000))
    file.write_text(f'{LIMIT}free_recipients = [\n{names}  "none",\n]\n[log]\nlevel = "info"\n')
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value).startswith(f'{file}:3: limit "default".free_recipients[5000]: found "none"')


def test_the_line_of_a_byte_that_is_no_text_is_said(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_bytes(LIMIT.encode() + b"# \xe4\n")
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value).startswith(f"{file}:3: not UTF-8: found byte")


def test_a_setting_at_the_wrong_place_is_said_to_belong_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    for text, belongs in (
        ("quota = 10\n", "quota is a setting under [[limit]]"),
        (LIMIT + "path = 'x'\n", "path is a setting under [store]"),
        (LIMIT + "[server]\nlimits = []\n", "limits is a setting under [[notify]]"),
        (LIMIT + "state_dir = 'x'\n", "state_dir is a setting at the top of the file, above every [table]"),
        (LIMIT + "user = 'x'\n", "user is a setting at the top of the file, above every [table] and under [store]"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as raised:
            config.read(file)
        assert str(raised.value).endswith(f"; {belongs}")


def test_a_text_in_place_of_a_list_is_shown_as_a_list(tmp_path: Path) -> None:
    file = tmp_path / "ratelimitd.toml"
    file.write_text(LIMIT + '[server]\nlisten = "127.0.0.1:10032"\n')
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value).endswith('; as ["127.0.0.1:10032"]')


SYNTAX = {
    "a table twice": (
        f"[store]\ntable = 'a'\n{LIMIT}[store]\n",
        "the table [store] once, with all its settings: it begins in line 1",
    ),
    "a table in a table twice": (
        f"{LIMIT}[limit.quotas]\na = 1\n[limit.quotas]\n",
        "[limit.quotas] once, with all its settings: it begins in line 3",
    ),
    "a table that was a setting": (
        f"log.level = 'info'\n{LIMIT}[log]\n",
        "the table [log] once, with all its settings",
    ),
    "a setting twice": (f"{LIMIT}key = 'email'\nkey = 'domain'\n", "each setting once; "),
    "a text without quotes": (f"{LIMIT}period = daily\n", '"a text", a number, '),
    "an account without quotes": (f"{LIMIT}[limit.quotas]\nboss@example.com = 5\n", '_ and - is "in quotes"'),
}


@pytest.mark.parametrize("kind", SYNTAX)
def test_how_toml_is_written_is_said_where_it_is_not(tmp_path: Path, kind: str) -> None:
    """As where a page's example is pasted below a copy of conf/ratelimitd.toml."""
    text, how = SYNTAX[kind]
    (tmp_path / "ratelimitd.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        config.read(tmp_path / "ratelimitd.toml")
    said = str(raised.value)
    assert "; allowed: TOML: " in said
    assert how in said
    assert "\n" not in said


def test_what_is_nowhere_in_the_file_has_no_line() -> None:
    assert places.line_of("journal", LIMIT, {"limit": [{"quota": 1}]}) is None


def test_a_huge_file_is_searched_in_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    quotas = {f"a{i}": i for i in range(10_000)}
    text = "[[limit]]\nquota = 1\n[limit.quotas]\n" + "".join(f"{key} = {quota}\n" for key, quota in quotas.items())
    data = {"limit": [{"quota": 1, "quotas": quotas}]}
    monkeypatch.setattr(places, "MAX_PARSED", 20)
    assert places.line_of('limit[0].quotas."a9000"', text, data) == 9004
    monkeypatch.setattr(places, "MAX_PARSED", 5)
    assert places.line_of('limit[0].quotas."a9000"', text, data) is None
