"""What a worker does not load: its idle memory is mostly the code of libraries."""

import subprocess
import sys

BARE = """
import sys
import callboard_workers, callboard_workers.celery.command, callboard_workers.celery.consumer
import callboard_workers.celery.pool
print([name for name in ("sqlalchemy", "asyncpg", "service.settings", "litestar") if name in sys.modules])
"""


def test_a_worker_of_actors_without_a_database_loads_nothing_of_one() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
