"""An API whose mail goes to a server of the test."""

from typing import Any

import pytest

from service.settings import Settings


@pytest.fixture
def settings(database: str, redis_url: str, mailbox: Any) -> Settings:
    return Settings.from_env(
        {
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "SECRET_KEY": "a secret of tests only",
            "SMTP_HOST": mailbox.host,
            "SMTP_PORT": str(mailbox.port),
            "MAIL_FROM": "Callboard <mail@callboard.example>",
        }
    )
