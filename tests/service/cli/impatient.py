"""A fleet that asks its workers more often than people want: `python -m tests.service.cli.impatient PROCESSES`."""

import sys

from service.cli import worker_supervisor
from service.settings import Settings

if __name__ == "__main__":
    worker_supervisor.ASK_EVERY, worker_supervisor.SILENT = 0.5, 4
    sys.exit(worker_supervisor.run(Settings.from_env(), int(sys.argv[1]), []))
