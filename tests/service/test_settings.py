"""Settings: every fault at once, no secret shown, every field documented."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar import Litestar

from service.app import create_app, lifespan
from service.celery import make_app
from service.cli.main import callboard
from service.domains.sender_policy import house_of
from service.local_stack import running
from service.settings import Settings, SettingsError
from tests.layout.settings_reference import describe

NO_SENDERS = ["=?utf-8?q?Caf=C3=A9?= <hello@example.org>", "a@b..example", ".a@b.example", "Acme <a@-.example>"]


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {
                "DATABASE_URL": "mysql://x",
                "API_PORT": "eighty",
                "SMTP_TLS": "maybe",
                "SECRET_KEY": "short",
                "MAIL_SEND": "perhaps",
                "DB_POOL_TIMEOUT": "-1",
            }
        )
    for name in ("DATABASE_URL", "API_PORT", "SMTP_TLS", "SECRET_KEY", "MAIL_SEND", "DB_POOL_TIMEOUT"):
        assert f"{name}: " in str(caught.value)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        "hello@example.org",
        "Your app <hello@example.org>",
        '"Ada, of \\"Academy\\" @ work" <ada@academy.example>',
        "<hello@example.org>",
        "Jörg <jörg@bücher.example>",
        "root@localhost",
        "Callboard<a+b@[192.0.2.1]>",
        "Callboard <a@[IPv6:2001:db8::1]>",
        '"Acme, Inc. (EU): Mail" <hello@example.org>',
        "Ада Лавлейс & Söhne <ada@xn--bcher-kva.example>",
    ],
)
def test_a_sender_is_an_address_with_or_without_a_name(good: str) -> None:
    settings = Settings.from_env({"MAIL_FROM": good})
    assert settings.mail_from == good
    assert "@" in house_of(settings).sender.addr_spec


@pytest.mark.parametrize(
    "bad",
    [
        "hello",
        "Your app hello@example.org",
        "a@b.example, c@d.example",
        "Your app <hello>",
        "<a@b> <c@d>",
        "a@",
        "a@b@c.example",
        "Acme, Inc. <hello@example.org>",
        "Acme (EU) <hello@example.org>",
        "Acme: Mail <hello@example.org>",
        "Acme [EU] <hello@example.org>",
        "Acme\t<hello@example.org>",
    ],
)
def test_what_is_no_sender_is_refused_before_anything_is_served(bad: str) -> None:
    with pytest.raises(SettingsError, match="MAIL_FROM: one address is expected"):
        Settings.from_env({"MAIL_FROM": bad})


@pytest.mark.parametrize("bad", NO_SENDERS)
def test_what_only_looks_like_a_sender_stops_the_process_with_the_reason(bad: str) -> None:
    environ = {"MAIL_FROM": bad, "SECRET_KEY": "a secret of tests only"}
    with pytest.raises(SettingsError, match="MAIL_FROM: this is no sender: "):
        house_of(Settings.from_env(environ))
    for command in ("api", "worker", "beat"):
        done = CliRunner().invoke(callboard, [command], env=environ)
        assert (done.exit_code, done.output.count("MAIL_FROM: this is no sender: ")) == (1, 1), done.output


async def test_no_application_and_no_worker_opens_with_what_only_looks_like_a_sender() -> None:
    settings = Settings.from_env({"MAIL_FROM": NO_SENDERS[0]})
    open_runtime = make_app(settings).runtime_factory
    assert open_runtime is not None
    app: Any = create_app(settings)
    while not isinstance(app, Litestar):
        app = app.app
    with pytest.raises(SettingsError, match="MAIL_FROM: this is no sender: "):
        await lifespan(app).__aenter__()
    with pytest.raises(SettingsError, match="MAIL_FROM: this is no sender: "):
        await open_runtime()


def test_a_bound_is_written_as_people_write_it() -> None:
    with pytest.raises(SettingsError, match=r"RECORD_RETENTION: seconds from 0 to 316,224,000 are expected"):
        Settings.from_env({"RECORD_RETENTION": "for ever"})


def test_aliases_and_words_are_understood() -> None:
    made = Settings.from_env(
        {"CELERY_BROKER_URL": "redis://r/1", "EMAIL_ENABLED": "off", "QUEUES": "a, b,", "LOG_LEVEL": "debug"}
    )
    assert (made.redis_url, made.mail_send, made.queues, made.log_level) == ("redis://r/1", False, ("a", "b"), "DEBUG")


def test_the_name_wins_over_its_alias_and_an_empty_value_is_none() -> None:
    made = Settings.from_env({"REDIS_URL": "redis://a/0", "CELERY_BROKER_URL": "redis://b/0", "API_PORT": " "})
    assert (made.redis_url, made.api_port) == ("redis://a/0", 8000)


def test_another_broker_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError, match=r"CELERY_BROKER_URL: amqp:// is another broker.*docs/operations\.md"):
        Settings.from_env({"CELERY_BROKER_URL": "amqp://guest:hunter2@rabbit//"})


def test_no_secret_is_shown() -> None:
    shown = repr(
        Settings.from_env(
            {
                "DATABASE_URL": "postgresql://u:hunter2@h/d",
                "REDIS_URL": "redis://:hunter2@h",
                "SMTP_PASSWORD": "hunter2",
                "SECRET_KEY": "hunter2hunter2hunter2",
            }
        )
    )
    assert "hunter2" not in shown


def test_the_example_names_every_setting_with_its_default() -> None:
    told = describe() + "\n"
    for shown in (
        "DATABASE_URL=",
        "SMTP_TLS=none",
        "QUEUES=\n",
        "MAIL_SEND=true",
        "BODY_LIMIT=26214400",
        "EMAIL_ENABLED",
    ):
        assert shown in told


def test_the_servers_of_up_are_found(tmp_path: Path) -> None:
    assert running(tmp_path) == {}
    (tmp_path / "up.json").write_text('{"database_url": "postgresql://x/y", "redis_url": "redis://x", "pid": 1}')
    assert running(tmp_path) == {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x"}
    mail = '"smtp": "127.0.0.1:1025"'
    (tmp_path / "up.json").write_text(f'{{{mail}, "mailbox": "http://127.0.0.1:8025"}}')
    found = running(tmp_path)
    assert (found["SMTP_HOST"], found["SMTP_PORT"], found["SMTP_TLS"]) == ("127.0.0.1", "1025", "none")
    (tmp_path / "up.json").write_text(f'{{{mail}, "mailbox": null}}')
    assert running(tmp_path) == {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": "1025"}
    (tmp_path / "up.json").write_text("{")
    assert running(tmp_path) == {}


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [
        ({"SMTP_USER": "shop"}, "smtp_username", "shop"),
        ({"EMAIL_SMTP_HOST": "mail.example.org"}, "smtp_host", "mail.example.org"),
        ({"EMAIL_SMTP_PORT": "2525"}, "smtp_port", 2525),
        ({"EMAIL_SMTP_PASSWORD": "secret"}, "smtp_password", "secret"),
        ({"SMTP_USE_TLS": "True"}, "smtp_tls", "starttls"),
        ({"SMTP_USE_TLS": "True", "SMTP_PORT": "465"}, "smtp_tls", "tls"),
        ({"SMTP_USE_TLS": "False"}, "smtp_tls", "none"),
        ({"SMTP_USE_TLS": "True", "SMTP_TLS": "none"}, "smtp_tls", "none"),
        ({"SMTP_FROM_EMAIL": "a@example.org"}, "mail_from", "a@example.org"),
        (
            {"SMTP_MAIL_FROM": "a@example.org", "SMTP_FROM_NAME": 'The "S"'},
            "mail_from",
            '"The \\"S\\"" <a@example.org>',
        ),
        ({"EMAIL_FROM_ADDRESS": "a@example.org", "MAIL_FROM": "b@example.org"}, "mail_from", "b@example.org"),
    ],
)
def test_names_of_the_systems_it_replaces_are_understood(former: dict[str, str], name: str, value: object) -> None:
    assert getattr(Settings.from_env(former), name) == value


def test_a_former_name_that_cannot_be_understood_is_refused_by_name() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"SMTP_USE_TLS": "perhaps", "SMTP_FROM_NAME": "Shop"})
    assert "SMTP_USE_TLS: " in str(refused.value)
    assert "SMTP_FROM_NAME: " in str(refused.value)


EXAMPLE = {"SECRET_KEY": "development-only-development-only", "REDIS_URL": "redis://:CHANGE-ME@valkey:6379/0"}


@pytest.mark.parametrize("url", ["https://mail.example.com", "http://10.0.0.7:8000", "https://localhost.example.com"])
def test_a_public_default_is_refused_by_name_where_others_are_served(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({**EXAMPLE, "PUBLIC_URL": url, "FLOWER_BASIC_AUTH": "callboard:development-only"})
    for name in ("SECRET_KEY", "REDIS_URL", "FLOWER_BASIC_AUTH"):
        assert f"{name}: holds a value of our examples" in str(refused.value)
    assert "DATABASE_URL" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_a_public_default_is_good_enough_for_this_machine(url: str) -> None:
    assert Settings.from_env({**EXAMPLE, "PUBLIC_URL": url}).secret_key == EXAMPLE["SECRET_KEY"]
