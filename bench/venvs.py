"""Each peer in an environment of its own, made on demand from its pinned list and kept for the next run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.progress import say

PEERS = Path(__file__).parent / "peers"


class NoEnvironment(RuntimeError):
    """A peer could not be installed; the message says why."""


def cache() -> Path:
    """Where environments and data live: outside the repository."""
    base = os.environ.get("CALLBOARD_BENCH_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "callboard-bench"
    )
    path = Path(base).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def python_of(name: str | None) -> str:
    """The interpreter of a peer's environment, made now if it is missing; None: our own. Raises NoEnvironment."""
    if name is None:
        return sys.executable
    pins = PEERS / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = cache() / f"{name}-{digest}"
    python = home / "bin/python"
    if not (home / "complete").exists():
        _make(home, python, pins)
    return str(python)


def _make(home: Path, python: Path, pins: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NoEnvironment("uv is not installed: https://docs.astral.sh/uv/ says how")
    say(f"installing {pins.stem} into {home}")
    shutil.rmtree(home, ignore_errors=True)
    _run(uv, "venv", "--quiet", "--python", sys.executable, str(home))
    _run(uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "-r", str(pins))
    (home / "complete").touch()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise NoEnvironment(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")
