"""Writes generated files, never over another, and puts them in the shape that the linter wants."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2

from service.cli.scaffold.names import Refused

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - Python, not HTML; names are checked before they come here
)


def render(template: str, **words: object) -> str:
    """Fill a template."""
    return TEMPLATES.get_template(f"{template}.jinja").render(**words)


def create(root: Path, files: Mapping[Path, str]) -> None:
    """Write new files (relative to `root`). Raises Refused, naming every one that exists; then nothing is written."""
    if there := [str(path) for path in files if (root / path).exists()]:
        raise Refused([f"{path} exists, and is not written over" for path in there])
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def shape(root: Path, paths: list[Path]) -> bool:
    """Sort the imports of Python files and format them; False where ruff, a tool of the dev group, is not installed."""
    if importlib.util.find_spec("ruff") is None:
        return False
    names = [str(path) for path in paths if path.suffix == ".py"]
    for arguments in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, *names], cwd=root, check=True, timeout=60)  # noqa: S603
    return True
