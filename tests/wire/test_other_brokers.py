"""Over a broker that is not Redis, Celery's own consumer feeds our pool; everything goes through that broker."""

from pathlib import Path

from celery import Celery

from tests.wire.process import Worker
from tests.wire.spool import options


def test_a_retry_goes_back_to_the_broker_that_it_came_from(redis_url: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    client = Celery("client", broker="filesystem://")
    client.conf.broker_transport_options = options(spool)
    with Worker(redis_url, tmp_path, app="tests.wire.spool", SPOOL=spool) as worker:
        client.send_task("demo.flaky", args=["elsewhere", 3], queue="default")
        worker.wait_for("attempt1 elsewhere", "attempt2 elsewhere", "attempt3 elsewhere")
        assert worker.stop() == 0
