"""huey over Redis, results off; a message is taken from its list before it runs (at most once)."""

import time

import kit
from huey import RedisHuey
from redis import ConnectionPool

huey = RedisHuey("peer", connection_pool=ConnectionPool.from_url(kit.URL, max_connections=1000), results=False)


@huey.task(name="noop")
def noop() -> None:
    kit.tick()


@huey.task(name="wait")
def wait(seconds: float = 0.1) -> None:
    time.sleep(seconds)
    kit.tick()


@huey.task(name="pong")
def pong(sent: float) -> None:
    kit.started(sent)


TASKS = {"noop": noop, "wait": wait, "pong": pong}


def send(name: str, *args: float) -> None:
    TASKS[name](*args)


if __name__ == "__main__":
    import huey_app  # huey names a task after its module: as a client that must not be __main__

    kit.main(kit.Client(huey_app.send, blocking=True))
