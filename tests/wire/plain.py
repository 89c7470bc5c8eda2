"""A stock Celery app that knows nothing of ours but the names of two tasks; run as it is, with Celery's own pool."""

import os

from celery import Celery

JOURNAL = os.environ.get("JOURNAL", os.devnull)
app = Celery("plain", broker=os.environ.get("REDIS_URL"))
app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
app.conf.task_default_queue = "default"


@app.task(name="demo.work", bind=True)
def work(self, tag, seconds=0.0):  # type: ignore[no-untyped-def]
    with open(JOURNAL, "a") as journal:
        journal.write(f"theirs {tag} {os.getpid()}\n")
