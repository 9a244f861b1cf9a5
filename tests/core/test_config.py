"""The configuration: every broken one gives one line that names the place; a right one is shown as it is in force."""

import re
from collections.abc import Callable
from datetime import UTC
from importlib.metadata import EntryPoint
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ratelimitd.config import limits
from ratelimitd.config import read as config
from ratelimitd.config.read import Configuration
from ratelimitd.config.show import in_force
from ratelimitd.daemon.main import main
from ratelimitd.errors import ConfigError

LIMIT = "[[limit]]\nquota = 1000\n"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.delenv("TZ", raising=False)

    def make(text: str | bytes) -> Path:
        path = tmp_path / "ratelimitd.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        config.read(path)
    text = str(raised.value)
    assert text.isprintable()
    found = re.match(rf"{re.escape(str(path))}(:[1-9][0-9]*)?: ", text)
    assert found is not None
    return text[found.end() :]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # the whole file
        ("", "limit: found nothing; allowed: [[limit]] in double brackets, once for each: a table of name, key,"),
        ("limit = []", "limit: found an empty list; allowed: [[limit]] in double brackets,"),
        ("limit = 5", "limit: found 5; allowed: [[limit]] in double brackets"),
        ("[limit]\nquota = 1", "limit: found a table; allowed: [[limit]] in double brackets"),
        ("server = 5\n" + LIMIT, "server: found 5; allowed: a table of listen, unix_mode,"),
        ("keys = 5\n" + LIMIT, "keys: found 5; allowed: a table of lowercase, default_domain"),
        (
            "sever = {}\n" + LIMIT,
            "sever: found an unknown setting (did you mean server?); allowed: a table of",
        ),
        ("nonsense = 1\n" + LIMIT, "nonsense: found an unknown setting; allowed: a table of state_dir, timezone,"),
        # syntax
        ("[[limit]\nquota = 1", "syntax: found "),
        ("quota", "syntax: found "),
        ("a = 1\na = 2", "syntax: found Cannot overwrite a value (at "),
        ("a = 2024-02-30", "syntax: found Invalid date or datetime"),
        ("a = " + "[" * 2000, "syntax: found "),
        ("a = " + "1" * 5000, "syntax: found "),
        ('a = "\x00"', "syntax: found "),
        (b"a = '\xff'", "not UTF-8: found byte 5; allowed: TOML in UTF-8"),
        # limits
        ("[[limit]]", 'limit "default".quota: found nothing; allowed: '),
        ("[[limit]]\nquota = -1", 'limit "default".quota: found -1; allowed: a whole number from 0 to 4294967295, or'),
        ("[[limit]]\nquota = 4294967296", 'limit "default".quota: found 4294967296; allowed: '),
        ("[[limit]]\nquota = 1000000000000000000000000", 'limit "default".quota: found 1000000000000000000000000'),
        ("[[limit]]\nquota = 1.5", 'limit "default".quota: found 1.5; allowed: '),
        ("[[limit]]\nquota = true", 'limit "default".quota: found true; allowed: '),
        ('[[limit]]\nquota = "many"', 'limit "default".quota: found "many"; allowed: '),
        ('[[limit]]\nquota = "5"', 'limit "default".quota: found "5"; allowed: '),
        (LIMIT + "period = 'yearly'", 'limit "default".period: found "yearly"; allowed: "hourly", "daily", "weekly", '),
        (
            LIMIT + "periode = 'daily'",
            'limit "default".periode: found an unknown setting (did you mean period?); ',
        ),
        (LIMIT + "[keys]\ndefault_domian = 'x'", 'keys.default_domian: found "x" (did you mean default_domain?); al'),
        (LIMIT + "[keys.emial]\na = 1", "keys.emial: found no such key plugin (did you mean email?); allowed: "),
        (LIMIT + "name = ''", 'limit "".name: found ""; allowed: a text that matches'),
        (LIMIT + "name = 'a b'", 'limit "a b".name: found "a b"; allowed: a text that matches'),
        (LIMIT + LIMIT, 'limit "default".name: found "default" again; allowed: a name of its own'),
        (LIMIT + "key = ''", 'limit "default".key: found ""; allowed: a text, not empty'),
        (LIMIT + "key = 'mail'", 'limit "default".key: found "mail"; allowed: an installed key plugin: '),
        (LIMIT + "action = 'OK'", 'limit "default".action: found "OK"; allowed: DUNNO, 4NN TEXT'),
        (LIMIT + "action = '450 {who} x'", 'limit "default".action: found "450 {who} x"; allowed: the placeholders'),
        (LIMIT + 'action = """450 a\nb"""', 'limit "default".action: found "450 a\\nb"; allowed: a text without'),
        (LIMIT + "quotas = 5", 'limit "default".quotas: found 5; allowed: a table of names and for each '),
        (LIMIT + "quotas.alice = -1", 'limit "default".quotas."alice": found -1; allowed: a whole number'),
        (LIMIT + "[limit.quotas]\na = 1\n'b@x.y' = 'no'", 'limit "default".quotas."b@x.y": found "no"; allowed: '),
        (LIMIT + "quotas = {alice = 1, Alice = 2}", 'limit "default".quotas."Alice": found "Alice" again; al'),
        (LIMIT + "quotas = {'' = 1}", 'limit "default".quotas."": found ""; allowed: each account'),
        (LIMIT + LIMIT.replace("quota", "name = 'b'\nquota") + "key = 'x'", 'limit "b".key: found "x"; allowed: '),
        # keys and plugins
        (LIMIT + "[keys]\nlowercase = 'yes'", 'keys.lowercase: found "yes"; allowed: true or false'),
        (LIMIT + "[keys]\ndefault_domain = '@x.y'", 'keys.default_domain: found "@x.y"; allowed: a domain, without @'),
        (
            LIMIT + "[keys]\ndefault_domain = 'a.b'\ndomains = ['a.b', 'x@c.d']",
            'keys.domains[1]: found "x@c.d"; allowed: a domain, without @',
        ),
        (
            LIMIT + "[keys]\ndomains = ['a.b']",
            "keys.domains: found domains without default_domain; allowed: both: a login of another domain is its local"
            " part, and has no domain that it counts under",
        ),
        (
            LIMIT + "[keys]\ndefault_domain = 'a.b'\ndomains = ['']",
            'keys.domains[0]: found ""; allowed: a domain, without @',
        ),
        (LIMIT + "[keys]\ndomains = 'a.b'", 'keys.domains: found "a.b"; allowed: a list: a text'),
        (
            LIMIT + "[keys]\nlower = 1",
            "keys.lower: found 1 (did you mean lowercase?); allowed: lowercase, ",
        ),
        (LIMIT + "[keys.mail]\na = 1", "keys.mail: found no such key plugin (did you mean email?); allowed: the "),
        (
            LIMIT + "[keys.email]\na = 1",
            "keys.email.a: found an unknown option; allowed: none: this plugin has no options",
        ),
        # server
        (LIMIT + "[server]\nlisten = []", "server.listen: found an empty list; allowed: a list of at least one: a"),
        (LIMIT + "[server]\nlisten = '127.0.0.1:1'", 'server.listen: found "127.0.0.1:1"; allowed: a list'),
        (LIMIT + "[server]\nlisten = ['[::1]:1', 5]", "server.listen[1]: found 5; allowed: a text"),
        (LIMIT + "[server]\nlisten = ['127.0.0.1']", 'server.listen[0]: found "127.0.0.1"; allowed: "ADDRESS:PORT"'),
        (LIMIT + "[server]\nlisten = ['inet:127.0.0.1']", 'server.listen[0]: found "127.0.0.1"; allowed: "ADDRESS'),
        (LIMIT + "[server]\nlisten = ['unix:x']", 'server.listen[0]: found "unix:x"; allowed: "ADDRESS:PORT"'),
        (LIMIT + '[server]\nlisten = ["unix:/a\\u0000"]', 'server.listen[0]: found "unix:/a\\x00"; allowed: a text'),
        (
            LIMIT + "[server]\nallow = ['10.0.0.1/8']",
            'server.allow[0]: found "10.0.0.1/8"; allowed: "10.0.0.0/8",',
        ),
        (LIMIT + "[server]\nallow = ['fd00::1/64']", 'server.allow[0]: found "fd00::1/64"; allowed: "fd00::/64", or "'),
        (LIMIT + "[server]\nallow = ['::1', 'all']", 'server.allow[1]: found "all"; allowed: an address or'),
        (LIMIT + "[server]\nunix_mode = '999'", 'server.unix_mode: found "999"; allowed: a text that matches'),
        (LIMIT + "[server]\nunix_mode = 660", "server.unix_mode: found 660; allowed: a text that matches"),
        (LIMIT + "[server]\nmax_connections = 0", "server.max_connections: found 0; allowed: a whole number from 1 to"),
        (LIMIT + "[server]\nrequest_timeout_s = 0", "server.request_timeout_s: found 0; allowed: a number over 0"),
        (LIMIT + "[server]\nrequest_timeout_s = nan", "server.request_timeout_s: found nan; allowed: a number over"),
        (LIMIT + "[server]\nfailure_action = 'OK'", 'server.failure_action: found "OK"; allowed: DUNNO'),
        (LIMIT + "[server]\nrequest_timeout_s = 2024-01-01", "server.request_timeout_s: found 2024-01-01; allowed: "),
        # store
        (LIMIT + "[store]\nbackend = 'pg'", 'store.backend: found "pg"; allowed: "mysql" or "postgresql" or "sqlite"'),
        (LIMIT + "[store]\nflush_interval_s = 0.01", "store.flush_interval_s: found 0.01; allowed: a number from"),
        (LIMIT + "[store]\npath = ''", 'store.path: found ""; allowed: a text, not empty'),
        (LIMIT + '[store]\npath = "a\\u0000b"', 'store.path: found "a\\x00b"; allowed: a text without control'),
        (LIMIT + "[store]\nhost = ['a', '']", 'store.host[1]: found ""; allowed: a text, not empty'),
        (LIMIT + "[store]\nport = 65536", "store.port: found 65536; allowed: a whole number from 0 to 65535"),
        (LIMIT + "[store]\ntable = 'a;b'", 'store.table: found "a;b"; allowed: letters,'),
        (LIMIT + "[store]\ncolumns.used = 'a b'", 'store.columns."used": found "a b"; allowed: letters,'),
        (LIMIT + "[store]\ncolumns.usage = 'x'", 'store.columns."usage": found "usage"; allowed: letters,'),
        (LIMIT + "[store]\ncolumns.used = 5", 'store.columns."used": found 5; allowed: a text'),
        (LIMIT + "[store]\ncolumns = {used = 'x', quota = 5}", 'store.columns."quota": found 5; allowed: a text'),
        (LIMIT + "quotas = {a = 'unlimited', b = 'x'}", 'limit "default".quotas."b": found "x"; allowed: '),
        (LIMIT + "[store]\ncolumns.used = 'Quota'", 'store.columns."used": found "Quota" for quota and for used'),
        # the rest
        ("timezone = 'Mars'\n" + LIMIT, 'timezone: found "Mars"; allowed: "local", a name such as'),
        ("timezone = 'Europe'\n" + LIMIT, 'timezone: found "Europe"; allowed: "local", a name such as'),
        ("timezone = 'CET-1CEST,M3.5.0'\n" + LIMIT, 'timezone: found "CET-1CEST,M3.5.0"; allowed: "local", a'),
        ("timezone = '../etc'\n" + LIMIT, 'timezone: found "../etc"; allowed: "local", a name such as'),
        ("timezone = '/nowhere'\n" + LIMIT, 'timezone: found "/nowhere"; allowed: "local", a name such as'),
        ("timezone = ''\n" + LIMIT, 'timezone: found ""; allowed: a text, not empty'),
        ("week_starts = 'friday'\n" + LIMIT, 'week_starts: found "friday"; allowed: "monday" or "sunday"'),
        ('state_dir = "a\\u001b"\n' + LIMIT, 'state_dir: found "a\\x1b"; allowed: a text without control'),
        ('"a\\nb" = 1\n' + LIMIT, "a\\nb: found an unknown setting; allowed: "),
        (LIMIT + "[log]\nfacility = 'post'", 'log.facility: found "post"; allowed: '),
        (LIMIT + "[log]\nlevel = 'loud'", 'log.level: found "loud"; allowed: '),
        (LIMIT + "[log]\nident = 'a b'", 'log.ident: found "a b"; allowed: a text that matches'),
        (LIMIT + "[log.file]\na = 1", "log.file: found a table; allowed: a text"),
        (LIMIT + "[control]\nsocket = ''", 'control.socket: found ""; allowed: a text, not empty'),
        (LIMIT + "[metrics]\nlisten = 5", "metrics.listen: found 5; allowed: a text"),
    ],
)
def test_a_broken_configuration_is_one_line_that_names_the_place(write: Write, text: str | bytes, line: str) -> None:
    found = refused(write(text))
    assert found.startswith(line)
    assert "; allowed: " in found


@pytest.mark.parametrize("value", ["123456", "['s3cret']", "true"])
def test_a_password_of_the_wrong_type_is_not_shown(write: Write, value: str) -> None:
    assert refused(write(LIMIT + f"[store]\npassword = {value}")) == ("store.password: found a secret; allowed: a text")


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path: Path) -> None:
    missing = refused(tmp_path / "none.toml")
    assert missing.startswith("cannot be read: found No such file or directory")
    assert missing.endswith("; -c FILE names another"), "who runs a command before anything is installed has no other"
    assert refused(tmp_path).startswith("cannot be read: found Is a directory")


def test_the_program_says_it_in_one_line_and_ends_with_2(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("[[limit]]\nquota = -1")
    for arguments in (["--check"], []):
        assert main(["-c", str(path), *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f'ratelimitd: {path}:2: limit "default".quota: found -1; ')
        assert err.count("\n") == 1


def test_one_limit_is_a_complete_configuration(write: Write) -> None:
    read = config.read(write(LIMIT))
    (limit,) = read.limits
    assert (limit.name, limit.key_name, limit.quota, limit.period.name) == ("default", "email", 1000, "daily")
    assert read.state_dir == Path("/var/lib/ratelimitd")
    assert read.failure_action.fixed == b"action=DUNNO\n\n"


def test_quotas_are_normalised_as_keys_are(write: Write) -> None:
    text = LIMIT + "quotas = {'Boss@Example.COM' = 'unlimited', '@Example.com' = 5}\n"
    (limit,) = config.read(write(text)).limits
    assert limit.configured_quota("boss@example.com") == 0
    assert limit.configured_quota("alice@example.com") == 5
    (limit,) = config.read(write(text + "[keys]\nlowercase = false")).limits
    assert limit.configured_quota("boss@example.com") == 1000


def test_paths_are_relative_to_the_file(write: Write) -> None:
    path = write("state_dir = 'state'\n" + LIMIT)
    assert config.read(path).state_dir == path.parent / "state"


def test_an_address_may_be_written_as_main_cf_has_it(write: Write) -> None:
    path = write(LIMIT + '[server]\nlisten = ["inet:127.0.0.1:10032", "inet:[::1]:10032", "unix:/a"]\n')
    assert config.read(path).settings.server.listen == ["127.0.0.1:10032", "[::1]:10032", "unix:/a"]


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_it(write: Write) -> None:
    assert config.read(write("\ufeff" + LIMIT)).limits[0].quota == 1000


def zone(path: Path) -> object:
    return config.read(path).limits[0].period.zone


def test_the_time_zone_is_the_configured_one(write: Write) -> None:
    assert zone(write("timezone = 'Europe/Zurich'\n" + LIMIT)) == ZoneInfo("Europe/Zurich")


@pytest.mark.parametrize("setting", ["Asia/Kolkata", ":Asia/Kolkata"])
def test_the_local_time_zone_is_tz(write: Write, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    path = write(LIMIT)
    monkeypatch.setenv("TZ", setting)
    assert zone(path) == ZoneInfo("Asia/Kolkata")


def test_tz_may_be_the_path_of_a_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(LIMIT)
    monkeypatch.setenv("TZ", ":/etc/nowhere")
    assert refused(path).startswith('timezone: found "local", which is "/etc/nowhere"; allowed: ')
    monkeypatch.setattr(limits, "_LOCALTIME", Path("/nonexistent"))
    zoneinfo = Path(config.__file__)  # no zone file at all
    monkeypatch.setenv("TZ", f":{zoneinfo}")
    assert refused(path).startswith(f'timezone: found "local", which is "{zoneinfo}"; allowed: ')


def test_the_local_time_zone_is_etc_localtime_or_utc(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(LIMIT)
    monkeypatch.setattr(limits, "_LOCALTIME", path.parent / "localtime")
    assert zone(path) is UTC
    (path.parent / "localtime").write_bytes(b"TZif2" + bytes(15) + bytes(24))
    assert refused(path).startswith("timezone: found ")


ONE_MESSAGE = '[[limit]]\nname = "one"\nquota = 5\nperiod = "message"\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            ONE_MESSAGE + 'count = "messages"\n',
            'limit "one".count: found "messages" with period = "message"; allowed: "recipients"',
        ),
        (
            ONE_MESSAGE + "count_rejected = false\n",
            'limit "one".count_rejected: found false with period = "message"; '
            "allowed: no such setting there: what is refused is not counted",
        ),
        (
            LIMIT + "count_rejected = 1\n",
            'limit "default".count_rejected: found 1; allowed: true or false, or "global"',
        ),
        (
            LIMIT + 'free_recipients = ["@example.org", "example.net"]\n',
            'limit "default".free_recipients[1]: found "example.net"; '
            'allowed: a domain as "@example.org", or an address as "list@example.net"',
        ),
        (
            LIMIT + ONE_MESSAGE + '[[notify]]\nurl = "https://a.example"\nlimits = ["one"]\n',
            'notify[0].limits[0]: found "one"; allowed: the name of a [[limit]] with accounts: default',
        ),
    ],
)
def test_what_makes_no_sense_together_is_one_line(write: Write, text: str, error: str) -> None:
    assert refused(write(text)) == error


def test_refusals_are_counted_as_the_limit_says_else_as_is_said_for_all(write: Write) -> None:
    own = '[[limit]]\nname = "y"\nquota = 1\ncount_rejected = true\n'
    own += own.replace('"y"', '"n"').replace("true", "false")
    for said in ("true", "false"):
        limits_ = config.read(write(f"count_rejected = {said}\n" + own + LIMIT + ONE_MESSAGE)).limits
        assert [limit.count_rejected for limit in limits_] == [True, False, said == "true", False]


def test_a_limit_of_one_message_has_a_reply_of_its_own_unless_one_is_set(write: Write) -> None:
    first, other = config.read(write(ONE_MESSAGE + LIMIT)).limits
    assert first.refusal("a", 6, 5, 0) == b"action=452 4.5.3 too many recipients in one message, 6/5\n\n"
    assert other.refusal("a", 6, 5, 0).startswith(b"action=450 4.7.1 daily message quota exceeded, 6/5, resets at ")
    [mine] = config.read(write(ONE_MESSAGE + 'action = "554 5.5.3 {period} {used}/{quota}, {reset}"\n')).limits
    assert mine.refusal("a", 6, 5, 0) == b"action=554 5.5.3 message 6/5, the next message\n\n"


def test_rows_without_a_limit_s_name_are_of_the_first_limit_that_is_stored(write: Write) -> None:
    assert config.read(write(ONE_MESSAGE + LIMIT)).names.limit == "default"


FULL = """
state_dir = "st\\"ate\\\\"
timezone = "Europe/Zurich"
week_starts = "monday"
count_rejected = false
[server]
listen = ["[::1]:10032", "unix:/run/x y"]
request_timeout_s = 0.5
failure_action = "450 4.3.0 {{busy}}"
[store]
host = ["a", "b"]
columns = {used = "spent"}
[keys]
default_domain = "example.com"
[keys.odd]
text = "a = \\u2028\\u007f\\n 'b'"
number = 123456789012345678901234567890
share = 1e300
yes = true
day = 2026-11-22
at = 2026-11-22T11:00:00Z
hour = 11:00:00
nets = ["10.0.0.0/8", ["x", 1]]
empty = {}
"an odd.name" = { "b c" = [{ d = 1 }] }
[keys.odd.map."a.b"]
inner = 1
[[limit]]
quota = "unlimited"
action = "450 4.7.1 {key}: \\"no\\""
[limit.quotas]
"a@b" = 5
"\\u00e9\\u2028" = 6
"@x.y" = "unlimited"
[[limit]]
name = "ours"
key = "odd"
period = "hourly"
quota = 5
count_rejected = true
free_recipients = ["@example.org", "\\"a b\\"@example.net"]
[[limit]]
name = "message"
key = "odd"
period = "message"
quota = 5
"""


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key plugin `odd` that takes any option."""
    mine = EntryPoint("odd", "tests.core.test_config:odd_factory", "ratelimitd.keys")
    ours = EntryPoint("email", "ratelimitd.keys:email", "ratelimitd.keys")
    monkeypatch.setattr("ratelimitd.plugins.metadata.entry_points", lambda group: (mine, ours))


def odd_factory(options: object) -> Callable[[object], str | None]:
    return lambda request: None


def same(one: Configuration, other: Configuration) -> bool:
    return (one.settings, one.options) == (other.settings, other.options)


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize("text", [LIMIT, FULL])
def test_what_is_in_force_can_be_read_again_and_is_the_same(write: Write, text: str) -> None:
    first = config.read(write(text))
    shown = in_force(first)
    again = config.read(write(shown))
    assert same(first, again)
    assert in_force(again) == shown


@pytest.mark.usefixtures("odd")
def test_no_secret_is_shown(write: Write) -> None:
    secrets = '[store]\npassword = "s3cret"\n[keys.odd]\ntoken = "s3cret"\ndeep = [{ secret = ["s3cret"] }]\n'
    shown = in_force(config.read(write(secrets + "[keys.odd.more]\npassword = 's3cret'\n" + LIMIT)))
    assert "s3cret" not in shown
    assert shown.count('"(not shown)"') == 4
    assert config.read(write(shown)).settings.store.password == "(not shown)"


def test_check_prints_what_is_in_force(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(LIMIT)
    assert main(["-c", str(path), "--check"]) == 0
    out, err = capsys.readouterr()
    assert out == in_force(config.read(path))
    assert err == ""
