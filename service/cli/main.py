"""The `callboard` command. Every command imports what it needs when it runs, so that the command starts at once."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.hints import hinting, nothing_near
from service.cli.text_arguments import Line

if TYPE_CHECKING:
    from service.settings import Settings

DATA = click.option(
    "--data",
    default=".callboard",
    envvar="CALLBOARD_DATA",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Where `up` keeps its data.",
)
PORT = click.IntRange(1, 65_535)
NAME = Line(100, least=1)
WORDS = Line(1000)


def settings(data: Path | None = None) -> "Settings":
    """Read the settings, of `up` in the folder `data` where DATABASE_URL is not set; end with every fault named."""
    from service.environment import with_servers  # noqa: PLC0415
    from service.settings import Settings, SettingsError  # noqa: PLC0415

    found = os.environ if data is None else with_servers(os.environ, data)
    try:
        return Settings.from_env(found)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    help="Read variables that the environment does not set from this file (ENV_FILE); by default .env, if it is there.",
)
@click.option("--no-env-file", is_flag=True, help="Read no .env file.")
def callboard(env_file: Path | None, *, no_env_file: bool) -> None:
    """Everything that must happen after the response: never lost, never sent twice."""
    from service.environment import EnvFileError, adopt  # noqa: PLC0415

    try:
        adopt(os.environ, "" if no_env_file else env_file)
    except EnvFileError as error:
        raise click.ClickException(str(error)) from None


@callboard.command()
@click.option("--port", default=8000, show_default=True, type=PORT, help="The port of the API.")
@DATA
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 128), help="Worker processes.")
def up(port: int, data: Path, workers: int) -> None:
    """Start everything on this machine.

    Postgres, Valkey, a mailbox, the API and a worker, until Ctrl-C.
    """
    from service.dev.up import run  # noqa: PLC0415

    _end(run(port=port, data=data, workers=workers))


@callboard.command()
@click.option("--host", help="The address to listen on (API_HOST).")
@click.option("--port", type=PORT, help="The port to listen on (API_PORT).")
@click.option("--processes", type=click.IntRange(1, 128), help="Processes (API_PROCESSES).")
def api(host: str | None, port: int | None, processes: int | None) -> None:
    """Serve the HTTP API."""
    from service.cli.api_server import run  # noqa: PLC0415

    run(_serving(), host=host, port=port, processes=processes)


@callboard.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--processes", type=click.IntRange(1, 128), help="Run so many, and start again what ends.")
@click.option("--of", "parent", type=int, hidden=True, help="The process to end with.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(processes: int | None, parent: int | None, arguments: tuple[str, ...]) -> None:
    """Run a worker.

    ARGUMENTS, after these options, are those of `celery worker`.
    """
    from service.cli import worker_supervisor  # noqa: PLC0415

    if processes is not None:
        if any(word.startswith(("-n", "--hostname")) for word in arguments):
            raise click.UsageError("--processes names its workers itself (w1@host, w2@host, …): leave out -n.")
        return _end(worker_supervisor.run(_serving(), processes, arguments))
    if parent is not None:
        worker_supervisor.follow(parent)
    return _celery("worker", arguments)


@callboard.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def beat(arguments: tuple[str, ...]) -> None:
    """Run Celery's beat.

    ARGUMENTS are those of `celery beat`.
    """
    _celery("beat", arguments)


@callboard.command()
@click.option("--to", "revision", default="head", show_default=True, help="The revision to reach.")
def migrate(revision: str) -> None:
    """Bring the database to the newest schema."""
    from service.db.migrate import run  # noqa: PLC0415

    _end(run(settings(), revision, say=click.echo))


@callboard.group()
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command("create")
@click.option("--tenant", required=True, type=NAME, help="The app that calls; made if it is new.")
@click.option("--scope", "scopes", multiple=True, default=("*",), show_default=True, help="What it may do; repeat it.")
@click.option("--name", default="", type=Line(100), help="What the key is for.")
@click.option("--test", is_flag=True, help="A test key: its mail never leaves the machine.")
@click.option("--expires-days", type=click.IntRange(1, 3650), help="Days until it expires; without it, never.")
@DATA
def keys_create(*, tenant: str, scopes: tuple[str, ...], test: bool, data: Path, **more: Any) -> None:
    """Make a key and print it, once: only its hash is stored."""
    from service import slices  # noqa: PLC0415
    from service.access.scopes import check  # noqa: PLC0415
    from service.cli.keys import create  # noqa: PLC0415

    check(scopes, slices.scopes())
    _run(create, settings(data), tenant, scopes, mode="test" if test else "live", **more)


@keys.command("list")
@click.option("--tenant", type=NAME, help="Only this app's.")
@DATA
def keys_list(tenant: str | None, data: Path) -> None:
    """List the keys, never their text."""
    from service.cli.keys import show  # noqa: PLC0415

    _run(show, settings(data), tenant)


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap-hours", default=24, show_default=True, type=click.IntRange(0, 8760), help="How long the old key goes on."
)
@DATA
def keys_rotate(key_id: str, overlap_hours: int, data: Path) -> None:
    """Make a key in the place of another.

    It is printed once; the old one, KEY_ID (`ak_…`), ends after the overlap.
    """
    from service.cli.keys import rotate  # noqa: PLC0415

    _run(rotate, settings(data), key_id, overlap_hours=overlap_hours)


@keys.command("revoke")
@click.argument("key_id")
@DATA
def keys_revoke(key_id: str, data: Path) -> None:
    """Revoke a key: KEY_ID, such as `ak_…`.

    Every process refuses it within five seconds.
    """
    from service.cli.keys import revoke  # noqa: PLC0415

    _run(revoke, settings(data), key_id)


@callboard.group()
def new() -> None:
    """Write a slice, or an actor, into this checkout."""


@new.command("slice")
@click.argument("name")
@click.option("--record", help="What one of them is called; by default NAME without its plural.")
def new_slice(name: str, record: str | None) -> None:
    """Write the slice NAME, such as `notes`.

    Table, migration, actor, routes and tests, all of them working.
    """
    from service.cli.scaffold.command import make_slice, run  # noqa: PLC0415

    _end(run(make_slice, name, record=record))


@new.command("actor")
@click.argument("slice_name", metavar="SLICE")
@click.argument("name")
def new_actor(slice_name: str, name: str) -> None:
    """Add the actor NAME, and a test of it, to SLICE."""
    from service.cli.scaffold.command import make_actor, run  # noqa: PLC0415

    _end(run(make_actor, slice_name, name))


@callboard.command()
@click.argument("id", type=Line(200, least=1))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, as `GET /v1/requests/{id}` returns it.")
@DATA
def trace(id: str, data: Path, *, as_json: bool) -> None:
    """Show the timeline of a request.

    ID is a request id, or the id of anything that a request caused: an email, a broadcast, a notification, a job, a
    webhook delivery, a task. Shows records, tasks, attempts and the mail server's replies; into a pipe or a file one
    line per fact, without colours.
    """
    from service.cli.trace import run  # noqa: PLC0415

    _run(run, settings(data), id, as_json=as_json)


@callboard.command()
@click.option("--actor", type=WORDS, help="Only this actor's, such as emails.send_email.")
@click.option("--error", type=WORDS, help="Only those whose last error is of this type.")
@click.option("--state", type=click.Choice(["dead", "uncertain", "held"]), help="Only these.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@DATA
def dead(data: Path, **chosen: Any) -> None:
    """List the dead letters: tasks that are out of attempts, or whose outcome is unknown."""
    from service.cli.tasks import show  # noqa: PLC0415

    _run(show, settings(data), **chosen)


@callboard.command()
@click.argument("ids", nargs=-1)
@click.option("--actor", type=WORDS, help="All of this actor.")
@click.option("--error", type=WORDS, help="All whose last error is of this type.")
@click.option(
    "--state",
    default="dead",
    show_default=True,
    type=click.Choice(["dead", "uncertain", "held"]),
    help="With --actor or --error: those in this state. An uncertain one may be done twice.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
def requeue(ids: tuple[str, ...], data: Path, **chosen: Any) -> None:
    """Queue dead letters again.

    IDS are of tasks or records; without any, at most 1,000 are chosen by --actor and --error.
    """
    from service.cli.tasks import requeue as run  # noqa: PLC0415

    _run(run, settings(data), ids, **chosen)


@callboard.command()
@click.argument("ids", nargs=-1, required=True)
@click.option(
    "--as",
    "state",
    required=True,
    type=click.Choice(["done", "dead", "held"]),
    help="What became of them; held: leave them as they are, whatever the policy says.",
)
@click.option("--reason", default="", type=WORDS, help="How you know; it is kept in their history.")
@DATA
def resolve(ids: tuple[str, ...], data: Path, *, state: str, reason: str) -> None:
    """Settle a doubt: say what became of tasks.

    IDS are of tasks or records whose outcome nobody could know: uncertain, held or dead.
    """
    from service.cli.tasks import resolve as run  # noqa: PLC0415

    _run(run, settings(data), ids, state=state, reason=reason)


@callboard.command()
@click.argument("id")
@DATA
def cancel(id: str, data: Path) -> None:
    """Cancel a task that waits or runs.

    ID is that of the task or of its record, such as em_…; past its point of no return it goes on.
    """
    from service.cli.tasks import cancel as run  # noqa: PLC0415

    _run(run, settings(data), id)


@callboard.command()
@click.argument("queue", type=WORDS)
@click.option("--cancel", "really", is_flag=True, help="Cancel the tasks; without it they are only counted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
def purge(queue: str, data: Path, *, really: bool, yes: bool) -> None:
    """Cancel every task that waits in a queue."""
    from service.cli.tasks import purge as run  # noqa: PLC0415

    _run(run, settings(data), queue, really=really, yes=yes)


@callboard.command()
@DATA
def status(data: Path) -> None:
    """Show whether all is well, and what waits: Postgres, Redis, the schema, and each queue."""
    from service.cli.status import run  # noqa: PLC0415

    with hinting():
        _run(run, settings(data))


@callboard.command()
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Runs, each with its faults."
)
@click.option("--mails", default=1000, show_default=True, type=click.IntRange(1, 1_000_000), help="Mails of each run.")
@click.option("--start", default=1, show_default=True, help="The first seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def chaos(seeds: int, mails: int, start: int, *, as_json: bool) -> None:
    """Break everything while mail flows, and count.

    It counts what is lost and what is sent twice. It runs on servers of its own, and refuses where the environment
    names others.
    """
    from service.dev.chaos.report import run  # noqa: PLC0415

    _end(run(seeds, mails, start, as_json=as_json))


@callboard.command()
@click.option("--send-to", help="Send one mail there, all the way.")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
@DATA
def doctor(send_to: str | None, as_json: bool, data: Path) -> None:
    """Test Postgres, Redis and the way to the mail server step by step, and say how to fix what fails."""
    from service.cli.doctor import run  # noqa: PLC0415

    with hinting():
        _end(run(settings(data), as_json=as_json, send_to=send_to))


def _serving() -> "Settings":
    """The settings of a process that takes or sends mail; who mails come from is looked at closely."""
    from service.domains.sender_policy import house_of  # noqa: PLC0415
    from service.settings import SettingsError  # noqa: PLC0415

    try:
        house_of(found := settings())
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    return found


def _celery(verb: str, arguments: tuple[str, ...]) -> None:
    from service.core import logging  # noqa: PLC0415

    found = _serving()
    from callboard_workers.celery.command import run  # noqa: PLC0415
    from service.celery import app  # noqa: PLC0415

    logging.configure(found, verb)  # now, because Celery warns before it asks for its logging
    chosen = found.log_format
    pretty = chosen == "pretty" or (chosen == "auto" and sys.stdout.isatty())
    run(app, verb, arguments, quiet=not pretty)  # whoever reads JSON lines reads no banner


def _run(command: Callable[..., Any], *arguments: object, **named: object) -> None:
    import asyncio  # noqa: PLC0415

    from service.db.engine import is_away, is_older  # noqa: PLC0415

    try:
        _end(asyncio.run(command(*arguments, **named)))
    except Exception as error:
        if is_older(error):
            raise click.ClickException("The tables are not those of this version: run `callboard migrate`.") from None
        if not is_away(error):
            raise
        hint = nothing_near() or "Postgres does not answer: is it running, and does DATABASE_URL name it?"
        raise click.ClickException(f"{hint} ({type(error).__name__})") from None


def _end(code: int | None) -> None:
    if code:
        sys.exit(code)
