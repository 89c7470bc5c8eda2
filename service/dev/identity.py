"""Under which name PostgreSQL runs: it refuses to be root."""

import functools
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Literal

from service.dev.server import launched

Identity = Literal["self", "namespace", "nobody"]
SHELTER = Path("/var/lib/callboard")


@functools.cache
def identity() -> Identity:
    """``self`` for an ordinary user; for root a user namespace, or nobody where the host forbids namespaces."""
    if os.geteuid() != 0:
        return "self"
    probe = subprocess.run(launched(["true"], identity="namespace"), capture_output=True, check=False)  # noqa: S603
    return "namespace" if probe.returncode == 0 else "nobody"


def nobody() -> tuple[int, int]:
    """The user and group id of nobody."""
    import pwd  # noqa: PLC0415 - not on every platform

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def reachable(path: Path) -> bool:
    """Whether any user may walk down to ``path`` (which need not exist)."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents if parent.exists())


def sheltered(path: Path) -> Path:
    """A place like ``path`` that nobody can reach: ``path`` itself when it will do."""
    if reachable(path):
        return path
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return SHELTER / digest / path.name


def sheltered_copy(folder: Path) -> Path:
    """``folder`` itself when nobody can reach it, else a copy of it that nobody can."""
    place = sheltered(folder)
    if place != folder and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        draft = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.copytree(folder, draft, symlinks=True)
        draft.rename(place)  # whole or not at all: two may copy at once
    return place


def give(path: Path, uid: int, gid: int) -> None:
    """Makes a data directory and all below it belong to one user; nothing happens when it does already."""
    if not path.exists() or path.stat().st_uid == uid:
        return
    for folder, _, files in os.walk(path):
        os.chown(folder, uid, gid)
        for name in files:
            os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
