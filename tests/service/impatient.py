"""A fleet that asks its workers more often than people want: `python -m tests.service.impatient PROCESSES`."""

import sys

from service import fleet
from service.settings import Settings

if __name__ == "__main__":
    fleet.ASK_EVERY, fleet.SILENT = 0.5, 4
    sys.exit(fleet.run(Settings.from_env(), int(sys.argv[1]), []))
