"""Celery as it is recommended for speed: results off but for one task, early acknowledgement, prefetch, no gossip."""

import os
import smtplib
import threading
import time

import kit
from celery import Celery, group

app = Celery("peer", broker=kit.URL, backend=kit.URL if os.environ.get("BENCH_RESULTS") else None)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_pool_limit=kit.CONCURRENT,
)


@app.task(name="noop")
def noop():
    kit.tick()


@app.task(name="kept", ignore_result=False)
def kept():
    kit.tick()
    return 42


@app.task(name="wait")
def wait(seconds=0.1):
    time.sleep(seconds)
    kit.tick()


@app.task(name="pong")
def pong(sent):
    kit.started(sent)


PORT = int(os.environ.get("BENCH_SMTP_PORT", "0"))
SENDER, RECIPIENT = "from@bench.test", "to@bench.test"
MAIL = b"Message-ID: <1@bench.test>\r\nSubject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * 14
mine = threading.local()


@app.task(name="mail")
def mail():
    """A connection for each mail, as most code does it; with BENCH_KEEP one for each thread."""
    if os.environ.get("BENCH_KEEP"):
        if not hasattr(mine, "smtp"):
            mine.smtp = smtplib.SMTP("127.0.0.1", PORT, local_hostname="bench")
        mine.smtp.sendmail(SENDER, [RECIPIENT], MAIL)
        return
    with smtplib.SMTP("127.0.0.1", PORT, local_hostname="bench") as smtp:
        smtp.sendmail(SENDER, [RECIPIENT], MAIL)


def send(name, *args):
    app.tasks[name].delay(*args)


def send_many(name, count):
    with app.producer_pool.acquire(block=True) as producer:
        group(app.tasks[name].s() for _ in range(count)).apply_async(producer=producer)


if __name__ == "__main__":
    kit.main(kit.Client(send, blocking=True))
