"""No secret of the configuration is shown: not by --check, an error, the log, ratelimitctl, nor by an object's repr."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ratelimitd.config import read as config
from ratelimitd.config.show import in_force
from ratelimitd.daemon.main import main
from ratelimitd.errors import ConfigError, is_secret
from ratelimitd.keys import OptionError
from ratelimitd.text import public

LIMIT = "[[limit]]\nquota = 1000\n"
SECRET = "s3cret"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str) -> Path:
        path = tmp_path / "ratelimitd.toml"
        path.write_text(text)
        return path

    return make


@pytest.fixture(autouse=True)
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key plugin `odd` that takes any option but `api_key = "s3cret-wrong"`."""
    mine = EntryPoint("odd", "tests.core.test_secrets:odd_factory", "ratelimitd.keys")
    ours = EntryPoint("email", "ratelimitd.keys:email", "ratelimitd.keys")
    monkeypatch.setattr("ratelimitd.plugins.metadata.entry_points", lambda group: (mine, ours))


def odd_factory(options: dict[str, object]) -> Callable[[object], str | None]:
    for name, value in options.items():
        if value == f"{SECRET}-wrong" or value == f"https://user:{SECRET}@[":
            raise OptionError(name, value, "a right one")
    return lambda request: None


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://user:s3cret@hooks.example.com/", "https://hooks.example.com/..."),
        ("https://s3cret@hooks.example.com:8443", "https://hooks.example.com:8443/..."),
        ("https://hooks.example.com/services/s3cret", "https://hooks.example.com/..."),
        ("https://hooks.example.com?token=s3cret", "https://hooks.example.com/..."),
        ("https://hooks.example.com/#s3cret", "https://hooks.example.com/..."),
        ("https://user:s3cret@[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/..."),
        ("https://user:1/s3cret@hooks.example.com/", "https://..."),
        ("https://user:s3/s3cret@hooks.example.com/", "https://..."),
        ("https://user:s3cret@s3cret@hooks.example.com/", "https://..."),
        ("https://user s3cret@hooks.example.com/ s3cret", "https://hooks.example.com/..."),
        ("https://s3cret:\ns3cret@h/", "https://h/..."),
        ("https://", "https://"),
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("--url=https://user:s3cret@hooks.example.com/ -H s3cret", "--url=https://hooks.example.com/..."),
        ("unix:/run/a", "unix:/run/a"),
    ],
)
def test_of_a_url_scheme_and_host_are_shown_if_at_all(url: str, seen: str) -> None:
    assert public(url) == seen


SECRETS = ["store.password", "notify[0].secret", "token", "db_password", "apiKey", "authToken", "x.tokens[0]"]
SECRETS += ["secret.deep.x", "api_key", "PASSWORD", "private-key", "bind_pwd"]
PUBLIC = ["store.password_file", "notify[0].secret_file", "tls_ca", "limit[0].key", "keys.x.key", "secretary"]
PUBLIC += ["tokenise", 'limit[0].quotas."token@example.com"', "keyword"]


@pytest.mark.parametrize("name", [*SECRETS, *PUBLIC])
def test_a_setting_is_a_secret_by_the_words_of_its_name(name: str) -> None:
    assert is_secret(name) is (name in SECRETS)


URL = f"https://user:{SECRET}@hooks.example.com/{SECRET}?key={SECRET}"
FULL = f"""
{LIMIT}
[limit.quotas]
"secret@example.com" = 5
[store]
password = "{SECRET}"
[keys.odd]
api_key = "{SECRET}"
server = "{URL}"
deep = [{{ where = "{URL}", authToken = ["{SECRET}"] }}]
[keys.odd.tokens]
alice = "{SECRET}"
[[notify]]
url = "{URL}"
secret = "{SECRET}"
[[notify]]
command = ["/bin/true", "--to={URL}"]
"""


def test_check_shows_none_and_what_it_prints_can_be_read_again(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(FULL)
    assert main(["-c", str(path), "--check"]) == 0
    printed = "".join(capsys.readouterr())
    assert SECRET not in printed
    assert printed.count("https://hooks.example.com/...") == 4
    assert '"secret@example.com" = 5' in printed
    again = config.read(write(in_force(config.read(path))))
    assert again.notify[0].url == "https://hooks.example.com/..."
    assert in_force(again) == in_force(config.read(write(FULL)))


def test_the_reply_s_text_is_public(write: Write) -> None:
    action = 'action = "450 4.7.1 over quota, see https://example.com/help?why=quota"\n'
    assert action in in_force(config.read(write(LIMIT + action)))


def test_no_object_of_the_configuration_shows_one(write: Write) -> None:
    read = config.read(write(FULL))
    for shown in (repr(read), repr(read.settings), repr(read.notify), f"{read.settings.store}"):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "text",
    [
        f'[[notify]]\nurl = "ftp://user:{SECRET}@host/"',
        f'[[notify]]\nurl = "ftp://user:1/{SECRET}@host:port/"',
        f'[[notify]]\nurl = "https://user:{SECRET}@host:port/"',
        f'[[notify]]\nurl = "user:{SECRET}@host/"',
        f'[[notify]]\nurl = "https://user:{SECRET}\\u0007@host/"',
        f'[[notify]]\nurl = "https://host/\\u0007{SECRET}"',
        f'[[notify]]\nurl = ["{URL}"]',
        f'[[notify]]\ncommand = "curl {URL}"',
        f'notify = "{URL}"',
        f'[[notify]]\nurl = "https://h/"\nsecret = ["{SECRET}"]',
        f'[store]\npassword = {{ now = "{SECRET}" }}',
        f'[store]\nport = "{URL}"',
        f'[keys]\ntoken = "{SECRET}"',
        f'[keys]\nserver = "{URL}"',
        f'[keys.odd]\napi_key = "{SECRET}-wrong"\n[[limit]]\nname = "b"\nquota = 1\nkey = "odd"',
        f'[keys.odd]\nserver = "https://user:{SECRET}@["\n[[limit]]\nname = "b"\nquota = 1\nkey = "odd"',
    ],
)
def test_an_error_shows_none(write: Write, text: str) -> None:
    at, _, _ = text.partition("=")
    path = write(text + "\n" + LIMIT if "[" not in at else LIMIT + text)
    with pytest.raises(ConfigError) as raised:
        config.read(path)
    assert SECRET not in str(raised.value)
    assert "syntax" not in str(raised.value)
