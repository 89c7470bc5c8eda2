"""The repository speaks of itself alone: public hosts, relative paths, nothing of the machine it was written on."""

import os
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from tests.layout.repository import ROOT, text_files, tracked_files

PUBLIC_HOSTS = {"pypi.org", "files.pythonhosted.org"}

# A path of one machine or one person: a home folder or a drive letter; the prefix under which this checkout lives.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])(?:/home/(?!linuxbrew)[a-z][\w.-]*/|/Users/\w|/root/|[A-Z]:\\\\)")

SECRET = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b")


def urls_in(value: object) -> list[str]:
    """Every string of a TOML document that is a URL."""
    if isinstance(value, dict):
        return [url for item in value.values() for url in urls_in(item)]
    if isinstance(value, list):
        return [url for item in value for url in urls_in(item)]
    return [value] if isinstance(value, str) and "://" in value else []


def test_the_lock_file_names_no_index_but_the_public_one() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    urls = urls_in(lock)
    assert len(urls) > 100, "the lock file holds no addresses, so this test would prove nothing"
    assert {urlsplit(url).hostname for url in urls} <= PUBLIC_HOSTS


def test_every_locked_file_has_a_hash() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    files = [file for package in lock["package"] for file in [*package.get("wheels", []), package.get("sdist")] if file]
    assert files
    assert [file["url"] for file in files if not file.get("hash", "").startswith("sha256:")] == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    own = {str(ROOT) + os.sep} if len(ROOT.parts) > 2 else set()
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in text_files()
        if path.name != "uv.lock" and path != Path(__file__).relative_to(ROOT)
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line) or any(prefix in line for prefix in own)
    ]
    # inside the image a path is a fact of the image
    found = [line for line in found if not line.startswith("Dockerfile:")]
    assert not found


def test_no_file_holds_a_secret() -> None:
    found = [str(path) for path, text in text_files() if path.name != "uv.lock" and SECRET.search(text)]
    assert [path for path in found if path != str(Path(__file__).relative_to(ROOT))] == []


def test_nothing_generated_is_tracked() -> None:
    generated = {"__pycache__", ".venv", ".callboard", ".pytest_cache", ".mypy_cache", ".ruff_cache", "node_modules"}
    assert [str(path) for path in tracked_files() if generated & set(path.parts) or path.suffix == ".pyc"] == []
    assert not (ROOT / ".env").exists() or Path(".env") not in tracked_files()
