"""Definitions of the worker's Prometheus metrics, under celery-exporter's names so that its dashboards fit."""

from prometheus_client import Counter, Gauge, Histogram

TASK = ("name", "queue_name")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
SENT = Counter("celery_task_sent", "Messages sent by this process.", TASK)
RECEIVED = Counter("celery_task_received", "Messages received by this worker.", TASK)
STARTED = Counter("celery_task_started", "Attempts started.", TASK)
SUCCEEDED = Counter("celery_task_succeeded", "Attempts that succeeded.", TASK)
FAILED = Counter("celery_task_failed", "Messages that failed for good or are in doubt.", (*TASK, "exception"))
RETRIED = Counter("celery_task_retried", "Attempts that are to be retried.", (*TASK, "exception"))
REVOKED = Counter("celery_task_revoked", "Messages canceled or expired.", TASK)
REJECTED = Counter("celery_task_rejected", "Messages nobody here can run.", TASK)
SNOOZED = Counter("celery_task_snoozed", "Attempts that put their message off.", TASK)
DEAD = Counter("celery_task_dead", "Messages that became dead letters.", TASK)
UNCERTAIN = Counter("celery_task_uncertain", "Messages whose outcome nobody knows.", TASK)
REDELIVERED = Counter("celery_task_redelivered", "Deaths of workers while they ran a message.", TASK)
UNSIGNED = Counter("celery_messages_unsigned", "Direct messages refused for want of a signature of our keys.")
IGNORED = Counter("celery_task_ignored", "Doorbells for rows not to be had, attempts that lost theirs.", TASK)
RUNTIME = Histogram("celery_task_runtime", "Seconds an attempt ran.", TASK, buckets=SECONDS)
WAIT = Histogram("celery_task_queue_wait_time", "Seconds from due to started.", TASK, buckets=SECONDS)
ACTIVE = Gauge("celery_worker_tasks_active", "Attempts running now.", multiprocess_mode="livesum")
UP = Gauge("celery_worker_up", "1 while this process runs messages.", multiprocess_mode="livesum")
LAG = Gauge(
    "celery_event_loop_lag_seconds", "Seconds the worker's event loop took to answer.", multiprocess_mode="livemax"
)
STUCK = Gauge("celery_worker_tasks_stuck", "Attempts written off that have not let go.", multiprocess_mode="livesum")
