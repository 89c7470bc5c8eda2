"""``python -m service.dev.mailbox``: the mailbox alone."""

import asyncio
import signal
from pathlib import Path

import click

from service.dev.mailbox.mailbox import LOOPBACK, Mailbox


@click.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="The address to listen on.")
@click.option("--smtp-port", default=1025, show_default=True)
@click.option("--http-port", default=8025, show_default=True)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Where to keep mails; else in memory.")
def main(host: str, smtp_port: int, http_port: int, file: Path | None) -> None:
    """Takes mail over SMTP, delivers nothing, and shows it on a page."""
    asyncio.run(serve(Mailbox(file, smtp_port=smtp_port, http_port=http_port, host=host)))


async def serve(mailbox: Mailbox) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await mailbox.start()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen: {error.strerror}. Choose another --smtp-port or --http-port"
        ) from error
    click.echo(f"Mailbox: {mailbox.url}   SMTP: {mailbox.host}:{mailbox.sink.port}")
    await stop.wait()
    await mailbox.stop()


if __name__ == "__main__":
    main()
