"""The fixtures of notifications, for the tests of users."""

from tests.service.notifications.conftest import desk, sql

__all__ = ["desk", "sql"]
