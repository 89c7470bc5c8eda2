"""An API whose mail goes to a server of the test."""

from typing import Any

import pytest

from service.settings import Settings
from tests.service.emails.conftest import post, post_to
from tests.service.emails.posting import mailing_to

__all__ = ["post", "post_to", "settings"]


@pytest.fixture
def settings(settings: Settings, mailbox: Any) -> Settings:
    return mailing_to(mailbox, settings)
