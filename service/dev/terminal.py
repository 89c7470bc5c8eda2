"""What `up` writes: one line per event, with the time and the component before it."""

import json
import os
import queue
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import IO, Any

BOUND = 10_000  # lines waiting for a terminal that does not take them
COLOURS = {"api": 36, "worker": 32, "beat": 35, "mailbox": 34, "postgres": 33, "valkey": 31, "up": 1}
LEVELS = {"warning": 33, "error": 31, "critical": 31}
DIM = 2
VALKEY_SAYS_ALWAYS = ("overcommit_memory", "ready to exit", "requested shutdown", "Received SIG")
SHOWN_BEFORE = {"at", "level", "event", "component"}
UNSEEN = {"logger", "tenant", "key_id"}  # the same in every line of one machine
LAST = ("task_id", "request_id")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a terminal obeys them
PLAIN = re.compile(r"[^\s\"'=]+")


def has_colour(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR (no-color.org) says otherwise."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Terminal:
    """Writes from a thread of its own, so that a paused terminal stops nothing; beyond 10,000 lines it drops."""

    def __init__(self, stream: IO[str], names: Sequence[str], colour: bool) -> None:
        self.stream = stream
        self.colour = colour
        self.width = max(map(len, names))
        self.lines: queue.Queue[str | None] = queue.Queue(BOUND)
        self.dropped = 0
        self.thread = threading.Thread(target=self._write_all, name="terminal", daemon=True)
        self.thread.start()

    def log(self, name: str, line: str) -> None:
        """A line that a component wrote: JSON of our logs is made readable, anything else stays as it is."""
        if not line.strip():
            return
        for number, text in enumerate(self.readable(line)):
            self._put(self._prefix(name) + (text if number == 0 else f"  {text}"))

    def say(self, text: str) -> None:
        """A line of `up` itself."""
        self._put(f"{self._prefix('up')}{text}")

    def block(self, text: str) -> None:
        """Lines without a prefix, for a person to read and copy."""
        for line in text.splitlines():
            self._put(line)

    def close(self) -> None:
        """Writes what is waiting, for a second at most."""
        self._put(None)
        self.thread.join(1)

    def paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def readable(self, line: str) -> list[str]:
        """One line of a log as one or more lines for a person."""
        text = line.rstrip()
        try:
            event = json.loads(text) if text.startswith("{") else None
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            return [clean(text)]
        if is_routine(event):
            return []
        return self._event(event)

    def _event(self, event: dict[str, Any]) -> list[str]:
        more = [clean(line) for line in str(event.pop("exception", "") or "").splitlines()]
        name = self.paint(clean(str(event["event"])), LEVELS.get(str(event.get("level")), 0))
        rest = {key: value for key, value in event.items() if key not in SHOWN_BEFORE | UNSEEN}
        rest |= {key: rest.pop(key) for key in LAST if key in rest}
        fields = [f"{self.paint(f'{key}=', DIM)}{written(value)}" for key, value in rest.items()]
        return [" ".join([name, *fields]), *more]

    def _prefix(self, name: str) -> str:
        now = self.paint(datetime.now().astimezone().strftime("%H:%M:%S"), DIM)
        code = COLOURS.get(name.rstrip("0123456789-"), 0)
        return f"{now} {self.paint(name.ljust(self.width), code)} {self.paint('│', DIM)} "

    def _put(self, line: str | None) -> None:
        try:
            self.lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def _write_all(self) -> None:
        while (line := self.lines.get()) is not None:
            if self.dropped:
                line = f"... {self.dropped} lines were not written: the terminal did not take them\n{line}"
                self.dropped = 0
            try:
                self.stream.write(line + "\n")
                if self.lines.empty():
                    self.stream.flush()
            except (OSError, ValueError):  # nobody reads any more; what runs goes on
                continue


def is_routine(event: Mapping[str, Any]) -> bool:
    """Whether a line says only that the schedule went its round: nobody who looks at an idle terminal needs it."""
    if event.get("level") != "info":
        return False
    fired = event["event"] == "cron_fired"
    return fired or (event["event"] == "task_done" and str(event.get("request_id")).startswith("cron:"))


def worth_reading_postgres(line: str) -> bool:
    """What went wrong, not the daily round."""
    return any(word in line for word in ("WARNING:", "ERROR:", "FATAL:", "PANIC:", "DETAIL:", "HINT:"))


def worth_reading_valkey(line: str) -> bool:
    # `#` marks warnings
    return " # " in line and not any(word in line for word in VALKEY_SAYS_ALWAYS)


def summary(line: str) -> str:
    """A line that a component wrote, short enough for a sentence: of our logs the event, its error and hint."""
    text = line.strip()
    try:
        event = json.loads(text) if text.startswith("{") else None
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        told = [str(event[key]) for key in ("event", "error", "hint") if event.get(key)]
        raised = str(event.get("exception") or "").strip().splitlines()[-1:]
        text = " ".join(told if event.get("error") or "error" in told[0].lower() else [*told, *raised])
    return clean(text)[:500]


def without_traceback(line: str) -> str:
    """A line of a process that does not start, or what remains of it without a Python traceback; empty for none."""
    if line.startswith(("Traceback (most recent call last)", " ", "\t")):
        return ""
    try:
        event = json.loads(line) if line.startswith("{") else None
    except ValueError:
        event = None
    if not isinstance(event, dict) or "exception" not in event:
        return line
    return json.dumps({name: value for name, value in event.items() if name != "exception"})


def written(value: object) -> str:
    """A field's value, quoted when it would not be one word."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean(text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False))


def clean(text: str) -> str:
    """Without escape sequences, and with other control characters made visible."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", ANSI.sub("", text).replace("\t", "    "))
