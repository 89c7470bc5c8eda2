"""The fixtures of notifications, for the tests of feeds."""

from tests.service.notifications.conftest import desk, sql

__all__ = ["desk", "sql"]
