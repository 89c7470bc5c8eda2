"""What keeps `callboard up` from starting is one line with the fix, soon, and never a traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from service.dev.ports import free_port
from tests.conftest import lacking
from tests.service.dev.test_up import OURS, ROOT, Up


def refused(data: Path, *before: str, **environ: str) -> str:
    """The one line with which `up` refuses to start."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [*before, sys.executable, "-m", "service", "up", "--port", str(free_port()), "--data", str(data)],
        cwd=ROOT,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert "starting everything" not in said, "it is known before anything starts"
    [line] = [line for line in done.stderr.splitlines() if line.startswith("callboard up:")]
    return line


def test_every_wrong_setting_is_named_in_one_line_before_the_start(tmp_path: Path) -> None:
    line = refused(tmp_path, WORKER_CONCURRENCY="0", LOG_LEVEL="verbose", DATABASE_URL="mysql://x", SMTP_USE_TLS="2")
    for name in ("WORKER_CONCURRENCY", "LOG_LEVEL", "DATABASE_URL", "SMTP_USE_TLS"):
        assert f"{name}: " in line


def test_redis_that_the_environment_names_and_nobody_runs_is_named(tmp_path: Path) -> None:
    port = free_port()
    line = refused(tmp_path, CELERY_BROKER_URL=f"redis://:secret@127.0.0.1:{port}/0")
    assert f"Redis at 127.0.0.1:{port} (CELERY_BROKER_URL) does not respond" in line
    assert "unset CELERY_BROKER_URL" in line
    assert "secret" not in line


def test_a_file_is_no_folder_for_data(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert f"{file} cannot hold the data: it is a file" in refused(file)
    assert "it is a file" in refused(file / "below")


def test_a_folder_on_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if done.returncode != 0:
        lacking(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    try:
        for data in (tmp_path, tmp_path / "below"):
            assert f"{data} cannot hold the data: Read-only file system" in refused(data)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_loopback_that_is_down_is_named(tmp_path: Path) -> None:
    alone = ("unshare", "--net")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        lacking("no network namespace may be made here")
    assert "ip link set lo up" in refused(tmp_path, *alone)


def test_a_health_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, WORKER_HEALTH_PORT=str(port))
    assert f"WORKER_HEALTH_PORT: port {port} is taken by process {os.getpid()}" in line


async def test_a_database_of_a_newer_version_is_named(tmp_path: Path, database: str, redis_url: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = '20991231_orders'")
    await connection.close()
    up = Up(tmp_path / "data", free_port(), DATABASE_URL=database, REDIS_URL=redis_url)
    assert up.process.wait(120) == 1
    assert "the database is at revision 20991231_orders, which this version does not know" in up.said
    assert "Traceback" not in up.said


def test_a_child_that_ends_again_and_again_is_named_with_its_last_output(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    broken = tmp_path / "sitecustomize.py"  # of the workers only, which run Celery's own command
    broken.write_text(
        "import sys\nif 'celery' in sys.orig_argv and 'worker' in sys.orig_argv:\n    sys.exit('no worker today')"
    )
    up = Up(tmp_path / "data", free_port(), DATABASE_URL=database, REDIS_URL=redis_url, PYTHONPATH=str(tmp_path))
    assert up.process.wait(120) == 1
    assert "callboard up: worker does not start: it ended with code 1, 3 times." in up.said
    assert "Its last output: SystemExit: no worker today. Fix that" in up.said
    assert "Traceback" not in up.said


@pytest.mark.parametrize("level", ["WARNING", "error"])
def test_readiness_is_asked_whatever_is_logged(tmp_path: Path, database: str, redis_url: str, level: str) -> None:
    up = Up(tmp_path / "data", free_port(), DATABASE_URL=database, REDIS_URL=redis_url, LOG_LEVEL=level)
    try:
        assert up.facts()["redis_url"] == redis_url
    finally:
        assert up.end(2) == 0
        up.until_gone()
    assert "refused to gracefully stop" not in up.said


def status_of(folder: Path, *options: str, **environ: str) -> str:
    """What `callboard status` says in a folder, where no server runs."""
    kept = {name: value for name, value in os.environ.items() if name not in (*OURS, "ENV_FILE")}
    done = subprocess.run(
        [sys.executable, "-m", "service", *options, "status"],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_command_reads_env_in_its_folder_and_the_environment_comes_first(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('# ours\nexport WORKER_CONCURRENCY=0\nLOG_LEVEL="verbose"\n')
    assert "WORKER_CONCURRENCY: " in status_of(tmp_path)
    assert "WORKER_CONCURRENCY: " not in status_of(tmp_path, WORKER_CONCURRENCY="5")
    assert "LOG_LEVEL: " in status_of(tmp_path, WORKER_CONCURRENCY="5")
    for said in (status_of(tmp_path, "--no-env-file"), status_of(tmp_path, ENV_FILE="")):
        assert "The environment is wrong" not in said
    (tmp_path / "other.env").write_text("API_PORT=none\n")
    for said in (status_of(tmp_path, "--env-file", "other.env"), status_of(tmp_path, ENV_FILE="other.env")):
        assert "API_PORT: " in said
        assert "LOG_LEVEL" not in said
    (tmp_path / ".env").write_text("WORKER_CONCURRENCY=5\nwhat is this\n")
    assert ".env, line 2: NAME=value is expected" in status_of(tmp_path)
    assert "none.env cannot be read" in status_of(tmp_path, "--env-file", "none.env")
