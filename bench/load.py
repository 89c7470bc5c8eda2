"""Load on an HTTP port: wrk where it is installed, else a client of our own on raw sockets.

Every request bears an Idempotency-Key of its own.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from bench.report import Figures

CONNECTIONS = 64
SCRIPT = """
local number, run, body, headers = 0, "%(run)s", %(body)s, %(headers)s
request = function()
  number = number + 1
  headers["Idempotency-Key"] = run .. number
  return wrk.format("POST", "%(path)s", headers, body)
end
done = function(summary, latency, requests)
  io.write(string.format("FIGURES %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


class Refused(RuntimeError):
    """The server did not take what it was sent."""


def tool() -> str:
    """What makes the load."""
    return "wrk" if shutil.which("wrk") else "a client of our own"


def measure(port: int, path: str, headers: dict[str, str], body: bytes, seconds: float) -> Figures:
    """Requests per second and latencies in ms over so many seconds. Raises Refused where any was not accepted."""
    if shutil.which("wrk"):
        return _wrk(port, path, headers, body, seconds)
    return asyncio.run(_sockets(port, path, headers, body, seconds))


def _wrk(port: int, path: str, headers: dict[str, str], body: bytes, seconds: float) -> Figures:
    values = {
        "run": secrets.token_hex(6),
        "path": path,
        "body": "[==[" + body.decode() + "]==]",
        "headers": "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items()) + "}",
    }
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "load.lua")
        script.write_text(SCRIPT % values)
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=False)
    found = re.search(r"FIGURES (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise Refused(f"wrk: {done.stderr or done.stdout}")
    count, spent, p50, p99, refused, broken = map(int, found.groups())
    if refused or broken or not count:
        raise Refused(f"{refused} of {count} requests were refused, {broken} connections broke")
    return {"rate": count / spent * 1e6, "p50": p50 / 1e3, "p99": p99 / 1e3, "count": float(count)}


async def _sockets(port: int, path: str, headers: dict[str, str], body: bytes, seconds: float) -> Figures:
    run, times = secrets.token_hex(6), list[float]()
    until = time.monotonic() + seconds
    fixed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fixed}Content-Length: {len(body)}\r\nIdempotency-Key: {run}"

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.monotonic() < until:
            count += 1
            began = time.monotonic()
            writer.write(f"{head}{number}-{count}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 2"):
                raise Refused(answer.split(b"\r\n", 1)[0].decode())
            length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.monotonic() - began)
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    cuts = statistics.quantiles(times, n=100)
    rate = len(times) / (time.monotonic() - began)
    return {"rate": rate, "p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3, "count": float(len(times))}


def mail(to: str = "ada@example.org") -> bytes:
    """A request of 1 kB."""
    filled = {"to": to, "subject": "A mail of a benchmark", "text": ""}
    return msgspec.json.encode(filled | {"text": "x" * (1000 - len(msgspec.json.encode(filled)))})
