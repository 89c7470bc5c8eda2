"""The `callboard` command. Every command imports what it needs when it runs, so that the command starts at once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.settings import Settings


def settings() -> "Settings":
    """Read the settings, or end with every fault named."""
    from service.settings import Settings, SettingsError  # noqa: PLC0415

    try:
        return Settings.from_env()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def callboard() -> None:
    """Everything that must happen after the response: never lost, never sent twice."""


@callboard.command()
@click.option("--port", default=8000, show_default=True, help="The port of the API.")
@click.option(
    "--data", default=".callboard", show_default=True, type=click.Path(path_type=Path), help="Where it keeps its data."
)
@click.option("--workers", default=1, show_default=True, help="Worker processes.")
def up(port: int, data: Path, workers: int) -> None:
    """Start everything on this machine: Postgres, Valkey, a mailbox, the API and a worker."""
    from service.dev.up import run  # noqa: PLC0415

    _end(run(port=port, data=data, workers=workers))


@callboard.command()
@click.option("--host", help="The address to listen on (API_HOST).")
@click.option("--port", type=int, help="The port to listen on (API_PORT).")
@click.option("--processes", type=click.IntRange(1, 128), help="Processes (API_PROCESSES).")
def api(host: str | None, port: int | None, processes: int | None) -> None:
    """Serve the HTTP API."""
    from service.serve import run  # noqa: PLC0415

    run(settings(), host=host, port=port, processes=processes)


@callboard.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run a worker; ARGUMENTS are those of `celery worker`."""
    _celery("worker", arguments)


@callboard.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def beat(arguments: tuple[str, ...]) -> None:
    """Run Celery's beat; ARGUMENTS are those of `celery beat`."""
    _celery("beat", arguments)


@callboard.command()
@click.option("--to", "revision", default="head", show_default=True, help="The revision to reach.")
def migrate(revision: str) -> None:
    """Bring the database's schema to the newest revision."""
    from service.migrate import run  # noqa: PLC0415

    _end(run(settings(), revision, say=click.echo))


@callboard.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@click.option("--tenant", required=True, help="The app that calls; made if it is new.")
@click.option(
    "--scope", "scopes", multiple=True, default=("*",), show_default=True, help="What the key may do; repeat it."
)
@click.option("--name", default="", help="What the key is for.")
@click.option("--test", is_flag=True, help="A test key: its mail never leaves the machine.")
@click.option("--expires-days", type=click.IntRange(1, 3650), help="Days until it expires; without it, never.")
def keys_create(tenant: str, scopes: tuple[str, ...], name: str, test: bool, expires_days: int | None) -> None:
    """Make a key and print it, once: only its hash is stored."""
    from service.access.commands import create  # noqa: PLC0415

    _run(create, settings(), tenant, scopes, name, "test" if test else "live", expires_days)


@keys.command("list")
@click.option("--tenant", help="Only this app's.")
def keys_list(tenant: str | None) -> None:
    """List the keys, never their text."""
    from service.access.commands import show  # noqa: PLC0415

    _run(show, settings(), tenant)


@keys.command("revoke")
@click.argument("key_id")
def keys_revoke(key_id: str) -> None:
    """Revoke the key KEY_ID (`ak_…`); every process refuses it within five seconds."""
    from service.access.commands import revoke  # noqa: PLC0415

    _run(revoke, settings(), key_id)


@callboard.command()
@click.argument("request_id")
@click.option(
    "--data",
    default=".callboard",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where `up` keeps its data.",
)
def trace(request_id: str, data: Path) -> None:
    """Tell the whole story of a request: records, tasks, attempts, the mail server's replies."""
    from service.trace import run  # noqa: PLC0415

    _run(run, request_id, data)


@callboard.command()
@click.option(
    "--data",
    default=".callboard",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where `up` keeps its data.",
)
def status(data: Path) -> None:
    """Show whether Postgres, Redis and the schema are well, and what waits in the queues."""
    from service.status import run  # noqa: PLC0415

    _run(run, data)


@callboard.command()
@click.option("--to", help="Send one mail there, all the way.")
def doctor(to: str | None) -> None:
    """Test the way to the mail server step by step, and say how to mend what fails."""
    from service.doctor import run  # noqa: PLC0415

    _end(run(to=to))


def _celery(verb: str, arguments: tuple[str, ...]) -> None:
    from celery.bin.celery import celery  # noqa: PLC0415

    sys.path.insert(0, str(Path.cwd()))
    celery.main(args=["-A", "service", verb, *arguments], prog_name="callboard")


def _run(command: Callable[..., Any], *arguments: object) -> None:
    import asyncio  # noqa: PLC0415

    from service.db import is_away  # noqa: PLC0415

    try:
        _end(asyncio.run(command(*arguments)))
    except Exception as error:
        if not is_away(error):
            raise
        hint = "is it running, and does DATABASE_URL name it?"
        raise click.ClickException(f"Postgres does not answer: {hint} ({type(error).__name__})") from None


def _end(code: int | None) -> None:
    if code:
        sys.exit(code)
