"""One server process: started, asked whether it is ready, stopped, and never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

LAUNCH = Path(__file__).with_name("launch.py")
POLL = 0.01  # seconds


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the last lines of its log."""


def launched(command: list[str], *, stop_signal: int = signal.SIGTERM, identity: str = "self") -> list[str]:
    """``command`` through the launcher, so that it ends when this process ends, however that happens.

    The calling *thread* must live as long as the command should: the kernel looks at it, not at the process.
    """
    program = [sys.executable, "-I", "-S", str(LAUNCH)]
    return [*program, str(os.getpid()), str(int(stop_signal)), identity, *command]


def environment(**more: str) -> dict[str, str]:
    """The environment for a child: ours, without what slows it down."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | more


class Server:
    """A process with a name, a log file and a probe; subclasses say which command it is."""

    name = "server"
    stop_signal: int = signal.SIGTERM
    start_timeout = 60.0  # seconds
    stop_timeout = 10.0  # seconds

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Makes what must exist before the first start, and clears what an earlier death left."""

    def command(self) -> list[str]:
        """The command line, launcher included."""
        raise NotImplementedError

    def is_ready(self, pid: int) -> bool:
        """Whether the process ``pid`` takes connections."""
        raise NotImplementedError

    def move(self) -> None:
        """Chooses another port, because somebody took ours between choosing and starting."""

    @property
    def pid(self) -> int:
        """The process id. Raises ServerFailed when it does not run."""
        if self.process is None or self.process.poll() is not None:
            raise ServerFailed(f"{self.name} does not run")
        return self.process.pid

    def spawn(self) -> None:
        """Starts the process without waiting until it is ready."""
        self.prepare()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = self._popen(output)

    def _popen(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(LC_ALL="C"),
            start_new_session=True,  # Ctrl-C is for us: we stop our servers in order
        )

    def wait(self) -> None:
        """Waits until it is ready. Raises ServerFailed with the end of its log when it ended or took too long."""
        deadline = time.monotonic() + self.start_timeout
        process = self.process
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            if self.is_ready(process.pid):
                return
            time.sleep(POLL)
        self.kill()
        raise ServerFailed(f"{self.name} did not start. The end of {self.log}:\n{self.last_lines()}")

    def start(self, attempts: int = 3) -> None:
        """Starts it and waits until it is ready; when its port was taken meanwhile, tries another."""
        for attempt in range(1, attempts + 1):
            self.spawn()
            try:
                self.wait()
                return
            except ServerFailed:
                if attempt == attempts or "address already in use" not in self.last_lines().lower():
                    raise
                self.move()

    def stop(self) -> None:
        """Stops it in its own good way; kills it when that takes longer than ``stop_timeout``."""
        if self.process is None:
            return
        self.signal(self.stop_signal)
        try:
            self.process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Sends a signal, unless it has ended already."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except OSError:
            return "(no log)"
