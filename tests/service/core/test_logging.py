"""Logs: one chain, one line for each event, nothing secret, nothing that steers a terminal."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import structlog

from callboard_workers.context import Correlation, correlation
from service.access.secrets import new_key
from service.core import logging as logs
from service.settings import Settings


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, lean = root.handlers[:], root.level, vars(logs.lean).copy()
    yield
    root.handlers, root.level = handlers, level
    vars(logs.lean).update(lean)
    structlog.reset_defaults()


def told(log_format: str = "json", level: str = "INFO") -> tuple[io.StringIO, logs.Writer]:
    stream = io.StringIO()
    settings = Settings.from_env({"LOG_FORMAT": log_format, "LOG_LEVEL": level})
    return stream, logs.configure(settings, "worker", stream)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("restored")
def test_structlog_stdlib_and_lean_lines_are_one_stream() -> None:
    stream, writer = told()
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("a").info("thing_done", count=1)
        logging.getLogger("celery.worker").warning("lost %s", "connection", extra={"task_id": "t"})
        logs.lean("request_done", {"status": 200})
    writer.flush()
    one, two, three = lines(stream)
    assert (one["event"], one["count"], one["request_id"], one["component"]) == ("thing_done", 1, "r-1", "worker")
    assert (two["event"], two["level"], two["logger"], two["request_id"]) == (
        "lost connection",
        "warning",
        "celery.worker",
        "r-1",
    )
    assert (three["event"], three["status"], three["level"]) == ("request_done", 200, "info")


@pytest.mark.usefixtures("restored")
def test_every_line_for_a_request_bears_its_ids_and_none_after_it() -> None:
    stream, writer = told()
    tenant_id = uuid4()
    mark = correlation.set(Correlation(request_id="r-1", tenant_id=tenant_id))
    structlog.get_logger("a").info("thing_done")
    logging.getLogger("a").warning("thing lost")
    structlog.get_logger("a").info("thing_shown", tenant="another")
    correlation.reset(mark)
    structlog.get_logger("a").info("thing_left")
    writer.flush()
    *during, shown, after = lines(stream)
    assert [(line["request_id"], line["tenant"]) for line in during] == [("r-1", str(tenant_id))] * 2
    assert (shown["request_id"], shown["tenant"]) == ("r-1", "another")
    assert not {"request_id", "tenant"} & after.keys()


@pytest.mark.usefixtures("restored")
def test_an_error_is_written_at_once_with_its_traceback() -> None:
    stream, _ = told()
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        structlog.get_logger().exception("thing_failed")
    assert "RuntimeError: boom" in lines(stream)[0]["exception"]


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_a_key_and_a_newline_never_reach_the_log(log_format: str) -> None:
    stream, writer = told(log_format)
    key = new_key("live")
    structlog.get_logger().info("thing_done", value=f"Bearer {key}", other="a\nb\x1b[31mred")
    logging.getLogger("x").info("got %s", key)
    writer.flush()
    assert key not in stream.getvalue()
    assert len(stream.getvalue().strip().splitlines()) == 2
    assert "\x1b[31mred" not in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_below_the_level_nothing_is_written() -> None:
    stream, writer = told(level="ERROR")
    structlog.get_logger().info("thing_done")
    logging.getLogger("x").warning("w")
    logs.lean("request_done", {})
    writer.flush()
    assert stream.getvalue() == ""


def test_a_full_disk_loses_lines_and_not_the_service() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    writer = logs.Writer(Full())
    writer.write("x")
    writer.flush()
    assert writer.lost == 1


@pytest.mark.parametrize(
    ("address", "masked"),
    [("alice@example.org", "a***@example.org"), ("a@b@example.org", "a***@example.org"), ("x", "***"), ("", "***")],
)
def test_an_address_is_masked(address: str, masked: str) -> None:
    assert logs.mask(address) == masked


def test_a_closed_pipe_does_not_end_the_process() -> None:
    program = (
        "import sys, time\nfrom service.core import logging as logs\n"
        "from service.settings import Settings\nimport structlog\n"
        "logs.configure(Settings.from_env({'LOG_FORMAT': 'json'}), 'api', sys.stdout)\n"
        "for n in range(20):\n structlog.get_logger().info('tick', n=n); time.sleep(0.02)\n"
        "sys.stdout = None\nsys.exit(7)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) in (7, 120)  # 120: the interpreter could not flush its own stdout
