"""A directory for servers' data, where making many files is quick."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.dev.stack import temporary_parent


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty directory, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="callboard-data-", dir=temporary_parent()))
    yield path
    shutil.rmtree(path, ignore_errors=True)
