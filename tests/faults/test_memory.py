"""A message that takes more memory than there is: the kernel kills its workers, and it alone is quarantined."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.dev.chaos.fleet import by_hand
from tests.conftest import lacking
from tests.faults.judging import eventually
from tests.wire.durable import swell, work
from tests.wire.process import Worker

GROUPS = Path("/sys/fs/cgroup")
SPARE = 48 * 1024 * 1024  # bytes that a worker may take beside what it has when it is ready


class Cell:
    """A control group with a limit of memory, of either version of Linux's interface."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.limit = place / ("memory.max" if (place / "memory.max").exists() else "memory.limit_in_bytes")

    def lock_up(self, pid: int) -> None:
        """The process may take so much more than it has."""
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
        self.limit.write_text(str(resident + SPARE))
        (self.place / "cgroup.procs").write_text(str(pid))


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Cell]:
    """A control group of this test."""
    root = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    place = root / f"callboard-{tmp_path.name}-{time.monotonic_ns()}"
    try:
        place.mkdir()
        made = Cell(place)
        made.limit.read_text()
    except OSError as error:
        with contextlib.suppress(OSError):
            place.rmdir()
        lacking(f"no control group may be made here: {error}")
    yield made
    with contextlib.suppress(OSError):
        place.rmdir()


async def state(engine: AsyncEngine, id: object) -> tuple[str, int, str]:
    async with engine.connect() as connection:
        sql = text("SELECT state, crashes, coalesce(error ->> 'type', '') FROM messages WHERE id = :id")
        row = (await connection.execute(sql, {"id": id})).one()
    return row[0], row[1], row[2]


async def test_a_message_that_eats_all_memory_is_quarantined_and_its_neighbour_is_not(
    engine: AsyncEngine, database: str, redis_url: str, tmp_path: Path, cell: Cell
) -> None:
    worker = Worker(redis_url, tmp_path, app="tests.wire.durable", DATABASE_URL=database)
    async with engine.begin() as connection:
        greedy = await swell.enqueue(connection, 4 * SPARE)
        await work.enqueue(connection, "neighbour", 2.0)
    try:
        for death in (1, 2, 3, 4):  # in company first, then three times alone
            await by_hand(worker.start)
            cell.lock_up(worker.pid)
            open(f"{worker.journal}.{worker.pid}", "w").close()  # noqa: ASYNC230
            await eventually(lambda: not worker.alive, f"the kernel kills worker {death}")
            assert worker.process is not None
            assert worker.process.returncode == -9
        await by_hand(worker.start)
        async with engine.begin() as connection:
            await work.enqueue(connection, "others")
        await eventually(lambda: worker.notes()["end others"] == 1, "others are served")
        for _ in range(600):
            if (await state(engine, greedy.id))[0] == "dead":
                break
            await by_hand(time.sleep, 0.1)
        assert await state(engine, greedy.id) == ("dead", 3, "Quarantined")
        assert worker.notes()["end neighbour"] == 1
        assert worker.alive
    finally:
        worker.kill()
