"""What the tests of the library share."""

from collections.abc import Iterator
from typing import Any

import pytest

from callboard_workers import Actor, actor, registry
from tests.workers import behaving as behaviour


@pytest.fixture
def behaving() -> Iterator[Actor[..., Any]]:
    """The actor `t.behave`; every actor named `t.…` is forgotten after the test."""
    behaviour.do.clear()
    yield actor(**behaviour.OPTIONS)(behaviour.behave)
    for each in list(registry):
        if each.name.startswith("t."):
            registry.discard(each.name)
