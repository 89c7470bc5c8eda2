"""One chain of logs for the API, the worker, beat and the command line: structlog, the standard library, Celery.

An event is `noun_verb` and fields. Ids are bound once, at the boundary. Addresses are masked; keys, headers and
bodies are never logged.
"""

import atexit
import contextlib
import io
import logging
import logging.config
import multiprocessing.util
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from callboard_workers.context import attempt_ids
from service.settings import Settings

Event = MutableMapping[str, Any]

FLUSH_EVERY = 0.1  # seconds
FLUSH_ABOVE = 64 * 1024  # bytes
KEY = re.compile(r"cb_(live|test)_[A-Za-z0-9]+")
ADDRESS = re.compile(r"[\w.%+'-]+@[\w-]+(?:\.[\w-]+)+")
TOLD = ("event", "exception", "error", "reason", "detail", "stack")
"""Fields that quote what others wrote: an exception's text, a server's reply."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def mask(address: str) -> str:
    """Mask an address for a log line: `alice@example.org` is `a***@example.org`."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}***@{domain}" if at else "***"


def redact(text: str) -> str:
    """Take API keys out of `text`."""
    return KEY.sub(r"cb_\1_***", text)


class Scrubber:
    """Takes addresses, API keys and this process' own secrets out of quoted text."""

    def __init__(self, settings: Settings) -> None:
        known = {
            part for item in fields(settings) if not item.metadata["shown"] for part in _parts(settings, item.name)
        }
        self._secrets = sorted((secret for secret in known if len(secret) >= 6), key=len, reverse=True)

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        """Scrub what an event quotes; a processor of the chain."""
        for name in TOLD:
            if isinstance(value := event.get(name), str):
                event[name] = self.scrub(value)
        return event

    def scrub(self, text: str) -> str:
        """Take them out of `text`."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return ADDRESS.sub(lambda found: mask(found[0]), redact(text)) if "@" in text else redact(text)

    def traceback(self, stream: TextIO, exc_info: Any) -> None:
        """Write a traceback, scrubbed, for the terminal."""
        plain = io.StringIO()
        structlog.dev.plain_traceback(plain, exc_info)
        stream.write(self.scrub(plain.getvalue()))


def _parts(settings: Settings, name: str) -> Iterator[str]:
    """The secrets in a setting: the text, each of several, the password of a URL."""
    value = getattr(settings, name)
    for text in value if isinstance(value, tuple) else (str(value),):
        url = urlsplit(text) if "://" in text else None
        found = text if url is None else url.password or ""
        yield from {found, unquote(found)}


class Writer:
    """A bounded, buffered writer of lines, flushed every 0.1 s by a thread of its own, when full, and at exit.

    A full disk or a closed pipe loses lines, counted in `lost`, never the service.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.lost = 0
        self._lines: list[str] = []
        self._size = 0
        self._start()
        atexit.register(self.flush)
        multiprocessing.util.Finalize(self, self.flush, exitpriority=0)  # a child of multiprocessing skips atexit
        os.register_at_fork(after_in_child=self._start_over)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        threading.Thread(target=self._flush_forever, name="log-writer", daemon=True).start()

    def _start_over(self) -> None:
        """In a fork: the lines belong to the parent, its thread is not here, its lock may be held by nobody."""
        self._lines, self._size = [], 0
        self._start()

    def write(self, line: str) -> None:
        """Take one line, without its line end."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > FLUSH_ABOVE:
            self.flush()
        elif not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Write what is buffered."""
        with self._lock:
            lines, self._lines, self._size = self._lines, [], 0
            if not lines:
                return
            try:
                self.stream.write("\n".join(lines) + "\n")
                self.stream.flush()
            except (OSError, ValueError):
                self.lost += len(lines)

    def _flush_forever(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            pause.wait(FLUSH_EVERY)
            self._wake.clear()
            self.flush()


class LineLogger:
    """What structlog calls with a finished line; an error is flushed at once, so that a crash does not swallow it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        """Buffer a line."""
        self._writer.write(line)

    def now(self, line: str) -> None:
        """Write a line at once."""
        self._writer.write(line)
        self._writer.flush()

    debug = info = msg
    warning = warn = error = exception = critical = fatal = log = now


class _LineHandler(logging.Handler):
    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._lines = LineLogger(writer)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        (self._lines.now if record.levelno >= logging.WARNING else self._lines.msg)(line)


class Lean:
    """Writes the one line of a request without the whole chain: a dict, encoded once."""

    def __init__(self) -> None:
        self.writer: Writer | None = None
        self.component = ""
        self.silent = False

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Write an info line."""
        if self.silent:
            return
        if self.writer is None:
            structlog.get_logger().info(event, **fields)
            return
        line = {"at": datetime.now(UTC), "level": "info", "event": event, "component": self.component, **fields}
        self.writer.write(_encode(line).decode())


lean = Lean()
_writers: list[Writer] = []


def flush() -> None:
    """Write what is buffered: before a process that may be killed lets go."""
    for writer in _writers:
        writer.flush()


class Shielded:
    """A standard stream that loses what a full disk or a closed pipe does not take, and raises nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shield() -> None:
    """Shield standard output from now on: a library that prints (Celery its banner) must not end the process."""
    for name in ("stdout", "__stdout__"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Shielded):
            setattr(sys, name, Shielded(stream))


def configure(settings: Settings, component: str, stream: TextIO | None = None) -> Writer:
    """Set up the one chain for this process; `component` (api, worker, beat, cli) is on every line. Idempotent."""
    out = stream or sys.stderr
    writer = next((known for known in _writers if known.stream is out), None) or Writer(out)
    if writer not in _writers:
        _writers.append(writer)
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        attempt_ids,
        structlog.processors.add_log_level,
        _component(component),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        _redact_event,
    ]
    scrub = Scrubber(settings)
    render: list[Any] = _pretty(scrub) if pretty else [structlog.processors.format_exc_info, scrub, _json]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: LineLogger(writer),
        cache_logger_on_first_use=True,
    )
    _configure_stdlib(writer, shared, render, level)
    lean.writer, lean.component, lean.silent = (None if pretty else writer), component, level > logging.INFO
    return writer


def _configure_stdlib(writer: Writer, shared: list[Any], render: list[Any], level: int) -> None:
    logging.captureWarnings(True)
    handler = _LineHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "asyncio", "sqlalchemy.engine", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def _component(component: str) -> Callable[[Any, str, Event], Event]:
    def add(_logger: Any, _method: str, event: Event) -> Event:
        event.setdefault("component", component)
        return event

    return add


def _logger_name(_logger: Any, _method: str, event: Event) -> Event:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _redact_event(_logger: Any, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if isinstance(value, str) and "cb_" in value:
            event[key] = redact(value)
    return event


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _json(_logger: Any, _method: str, event: Event) -> str:
    line = {"at": event.pop("at", None), "level": event.pop("level", None), "event": event.pop("event", None)}
    return _encode(line | dict(event)).decode()


def _pretty(scrub: Scrubber) -> list[Any]:
    return [
        scrub,
        _one_line,
        structlog.dev.ConsoleRenderer(
            colors=True, timestamp_key="at", pad_event_to=24, exception_formatter=scrub.traceback
        ),
    ]


def _one_line(_logger: Any, _method: str, event: Event) -> Event:
    # A terminal obeys control characters: a caller must not be able to paint over the log.
    for key, value in event.items():
        if isinstance(value, str) and key not in {"exception", "stack"} and CONTROL.search(value):
            event[key] = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return event


class Seldom:
    """Tells whether it is time to log something again: `if seldom.due(): log.warning(…)`, once in `every` seconds."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._next = 0.0

    def due(self) -> bool:
        """Whether nothing was logged for so long; the caller logs now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every
        return True
