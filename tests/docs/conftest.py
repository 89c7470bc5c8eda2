"""Forgets what an example declares: actors, and Celery's tasks, which every later app would be given."""

from collections.abc import Iterator

import celery
import pytest
from celery import _state

from callboard_workers import registry
from service import slices


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Leave this process as it was."""
    slices.import_actors()
    actors, app = {each.name for each in registry}, celery.current_app._get_current_object()
    finalizers = set(_state._on_app_finalizers)
    yield
    app.set_current()
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(finalizers)
    for name in {each.name for each in registry} - actors:
        registry.discard(name)
