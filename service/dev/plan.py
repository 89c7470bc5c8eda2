"""What `up` runs and with which settings: our servers, or those that the environment names."""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import service
from service.dev.postgres import write_private
from service.dev.server import environment, launched

LOOPBACK = "127.0.0.1"
SOURCES = Path(service.__file__).parent.parent


@dataclass(frozen=True, slots=True)
class External:
    """The servers that the environment names; None for each that is ours to run."""

    database_url: str | None
    redis_url: str | None
    smtp: str | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "External":
        smtp = environ.get("SMTP_HOST") or None
        return cls(
            environ.get("DATABASE_URL") or None,
            environ.get("REDIS_URL") or environ.get("CELERY_BROKER_URL") or None,
            f"{smtp}:{environ.get('SMTP_PORT') or 25}" if smtp else None,
        )


def child_environment(
    environ: Mapping[str, str],
    *,
    api_port: int,
    database_url: str,
    redis_url: str,
    smtp_port: int | None,
    secret: str,
    data: Path,
) -> dict[str, str]:
    """What every child gets. What the environment sets already wins; ``smtp_port`` is our mailbox's, if it is ours."""
    ours = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": secret,
        "API_HOST": LOOPBACK,
        "PUBLIC_URL": f"http://{LOOPBACK}:{api_port}",
        "OUTBOUND_PRIVATE": "true",  # an app under development listens on this machine
        "LOG_FORMAT": "json",  # made readable here, with every component's lines alike
    }
    if External.of(environ).redis_url is None:
        ours["CELERY_RESULT_BACKEND"] = redis_url  # a Celery client's `get()` finds what it waits for
    if smtp_port is not None:
        mailbox = {"SMTP_HOST": LOOPBACK, "SMTP_PORT": str(smtp_port), "SMTP_TLS": "none", "SMTP_MAILBOX": "true"}
        ours |= mailbox | {"MAIL_DOMAINS": "*"}
    chosen = {name: environ.get(name) or value for name, value in ours.items()}
    # the same code as this process, wherever it was started
    path = os.pathsep.join([str(SOURCES), *filter(None, [environ.get("PYTHONPATH")])])
    fixed = {"API_PORT": str(api_port), "CALLBOARD_DATA": str(data), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return environment(**{**environ, **chosen, **fixed})


def secret_of(file: Path) -> str:
    """The SECRET_KEY of a data directory, made once: cursors and links outlive a restart."""
    if not file.exists():
        write_private(file, secrets.token_hex(32))
    return file.read_text().strip()


def ours(*arguments: str, stop_signal: int) -> list[str]:
    """A `callboard` command as a child. ``stop_signal`` is what it gets when `up` is killed."""
    # -P: a folder named `service` where the command was started is not meant
    return launched([sys.executable, "-P", "-m", "service", *arguments], stop_signal=stop_signal)


def celery(*arguments: str, stop_signal: int) -> list[str]:
    """Celery's own command, without its banner; that root runs it here is no news."""
    quiet = ["-W", "ignore:You're running the worker with superuser privileges"]
    return launched(
        [sys.executable, "-P", *quiet, "-m", "celery", "--quiet", "-A", "service", *arguments], stop_signal=stop_signal
    )
