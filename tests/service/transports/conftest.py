"""The fixtures of emails, for these tests."""

from tests.service.emails.conftest import post, post_to

__all__ = ["post", "post_to"]
