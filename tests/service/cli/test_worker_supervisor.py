"""`callboard worker --processes N`: several workers under one parent, on the real stack."""

import json
import os
import signal
from pathlib import Path

from service.cli import worker_supervisor
from tests.journeys.house import House, free_port, house


def pids(made: House) -> list[int]:
    """The processes that the fleet's parent has started."""
    parent = made.processes["fleet"].pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def started(made: House, *, times: int) -> None:
    """Waits until so many workers in all have said that they are ready."""

    async def ready() -> bool:
        return made.log("fleet").count("ready.") >= times

    await made.eventually(ready, f"{times} workers are ready")


async def test_a_killed_worker_comes_back_and_a_signal_stops_them_all(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url) as made:
        made.start("fleet", "service", "worker", "--processes", "2")
        await started(made, times=2)
        first = pids(made)
        assert len(first) == 2
        assert "w1@" in made.log("fleet")
        assert "w2@" in made.log("fleet")
        os.kill(first[0], signal.SIGKILL)
        await started(made, times=3)
        again = pids(made)
        assert len(again) == 2
        assert first[0] not in again
        assert made.stop("fleet") == 0
        assert not [pid for pid in again if alive(pid)]
        told = [json.loads(line)["event"] for line in made.log("fleet").splitlines()]  # no banner between them
        assert told.count("worker_stopping") == 2


async def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, database: str, redis_url: str) -> None:
    async with house(tmp_path, database, redis_url) as made:
        made.start("fleet", "service", "worker", "--processes", "1")
        await started(made, times=1)
        children = pids(made)
        parent = made.processes.pop("fleet")
        parent.kill()
        parent.wait()

        async def gone() -> bool:
            return not [pid for pid in children if alive(pid)]

        await made.eventually(gone, "the worker ended with its parent")


async def test_a_name_for_all_is_refused(tmp_path: Path, database: str, redis_url: str) -> None:
    async with house(tmp_path, database, redis_url) as made:
        made.start("fleet", "service", "worker", "--processes", "2", "-n", "mine@here")
        assert made.processes.pop("fleet").wait(60) == 2
        assert "leave out -n" in made.log("fleet")


async def test_a_loop_that_never_answers_is_not_alive() -> None:
    assert not await worker_supervisor.answers("127.0.0.1", free_port())


async def test_a_worker_that_stands_still_is_killed_and_started_again(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    environ = {"WORKER_HEALTH_PORT": str(free_port())}
    async with house(tmp_path, database, redis_url, **environ) as made:
        made.start("fleet", "tests.service.cli.impatient", "1")
        await started(made, times=1)
        (child,) = pids(made)

        async def answers() -> bool:
            return await worker_supervisor.answers("127.0.0.1", int(environ["WORKER_HEALTH_PORT"]))

        await made.eventually(answers, "the worker answers")
        os.kill(child, signal.SIGSTOP)
        await started(made, times=2)
        assert "worker_stalled" in made.log("fleet")
        assert pids(made) != [child]
        assert made.stop("fleet") == 0
