"""The process in which tenants' templates run: no secrets, no database, little memory, little time.

It reads a length (4 bytes) and a Job, both on the socket it was given, and answers with a Result in the same way. When
a job takes more than SECONDS of processor time the kernel ends the process, whatever it is at. Where memory runs out it
answers so and ends by itself: what it kept of earlier jobs may be the reason, and a new process can tell.
"""

from __future__ import annotations

import resource
import signal
import socket
import struct
import sys
from contextlib import suppress

import msgspec

from service.core.cache import ByteCache
from service.templates.template import Template
from service.templates.tenant.compile import Job, Result, Unfit, compiled, filled, needs, weight

SECONDS = 2.0
MEMORY = 256 * 1024 * 1024  # bytes beside what it begins with
CACHE_BYTES = 64 * 1024 * 1024  # of compiled languages
SHARE_BYTES = 16 * 1024 * 1024  # of one tenant's
FILES = 16

_decoder = msgspec.msgpack.Decoder(Job)
_encoder = msgspec.msgpack.Encoder()


def main() -> None:
    """Answer jobs until the other side is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as line:
        limit()
        line.sendall(struct.pack(">I", 0))  # ready: everything is imported
        desk = Desk()
        while (job := receive(line)) is not None:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answer, exhausted = respond(desk, job)
            signal.setitimer(signal.ITIMER_PROF, 0)
            line.sendall(struct.pack(">I", len(answer)) + answer)
            if exhausted:
                return


def respond(desk: Desk, job: bytes) -> tuple[bytes, bool]:
    """Do one job; return the answer, and whether memory ran out: then what was kept is dropped first."""
    try:
        result = desk.answer(_decoder.decode(job))
        return _encoder.encode(result), result.exhausted
    except MemoryError:
        desk.kept.clear()
        return _encoder.encode(Result(exhausted=True)), True


def limit() -> None:
    """Give up what a template could want: memory, files, processes' cores."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is for the process that asks
    sizes = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: FILES}
    if (begun := _address_space()) is not None:
        sizes[resource.RLIMIT_AS] = begun + MEMORY
    for kind, size in sizes.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (size, size))


def receive(line: socket.socket) -> bytes | None:
    """Read one frame; None when the line is closed."""
    head = _exactly(line, 4)
    return None if head is None else _exactly(line, struct.unpack(">I", head)[0])


class Desk:
    """Answers jobs, and keeps what it compiled."""

    def __init__(self) -> None:
        self.kept: ByteCache[str, Template] = ByteCache(CACHE_BYTES, SHARE_BYTES)

    def answer(self, job: Job) -> Result:
        """Do one job."""
        try:
            return self._check(job) if job.name is None else self._fill(job, job.name)
        except Unfit as error:
            return Result(faults=error.faults)
        except RecursionError:
            return Result(faults=[("", "it is nested too deeply")])
        except MemoryError:
            self.kept.clear()
            return Result(exhausted=True)

    def _check(self, job: Job) -> Result:
        found, faults = {}, list[tuple[str, str]]()
        for locale, words in job.contents.items():
            try:
                found[locale] = needs(compiled(job.key, words, job.variables))
            except Unfit as error:
                faults += [(f"{locale}/{part}" if part else locale, sentence) for part, sentence in error.faults]
        return Result(faults=faults) if faults else Result(needs=found)

    def _fill(self, job: Job, name: str) -> Result:
        template = self.kept.get(name)
        if template is None:
            if not job.contents:
                return Result(unknown=True)
            (words,) = job.contents.values()
            template = compiled(job.key, words, job.variables)
            self.kept.put(name, template, owner=job.owner, size=weight(template))
        return Result(rendered=filled(template, job.given))


def _exactly(line: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = line.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _address_space() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as found:
            return int(found.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    main()
