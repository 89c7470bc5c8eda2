"""Celery as it is recommended for speed: results off, early acknowledgement, a deep prefetch, no gossip."""

import smtplib
import time

import kit
from celery import Celery, group

app = Celery("peer", broker=kit.URL)
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


@app.task(name="wait")
def wait(seconds=0.1):
    time.sleep(seconds)
    kit.tick()


@app.task(name="pong")
def pong(sent):
    kit.started(sent)


@app.task(name="mail")
def mail(host, port, sender, recipient, text):
    """A connection for each mail, as most Celery code does it."""
    with smtplib.SMTP(host, port, local_hostname="bench") as smtp:
        smtp.sendmail(sender, [recipient], text)
    kit.tick()


def send(name, *args):
    app.tasks[name].delay(*args)


def send_many(name, count):
    with app.producer_pool.acquire(block=True) as producer:
        group(app.tasks[name].s() for _ in range(count)).apply_async(producer=producer)


if __name__ == "__main__":
    kit.main(kit.Client(send, blocking=True))
