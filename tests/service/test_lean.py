"""What a worker does not load: its idle memory is mostly the code of libraries."""

import subprocess
import sys

UNWANTED = ("rich", "pygments", "yaml", "opentelemetry.sdk", "litestar", "flower", "tornado", "prompt_toolkit")
LOADED = f"""
import importlib, sys
from service import lean
lean.load("httpx")
import service.celery, callboard_workers.celery.command, callboard_workers.celery.consumer, callboard_workers.celery.task_consumer, callboard_workers.celery.pool
assert "celery.bin.worker" in sys.modules
print([name for name in {UNWANTED!r} if name in sys.modules])
for name in lean.UNUSED:
    importlib.import_module(name)
"""
BARE = """
import sys
from service import lean
lean.load()
import callboard_workers, callboard_workers.celery.command, callboard_workers.celery.consumer, callboard_workers.celery.task_consumer, callboard_workers.celery.pool
print([name for name in ("sqlalchemy", "asyncpg", "service.settings") if name in sys.modules])
"""


def test_a_worker_of_actors_without_a_database_loads_nothing_of_one() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_worker_loads_nothing_that_only_happens_to_be_installed_and_actors_may_import_it() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
