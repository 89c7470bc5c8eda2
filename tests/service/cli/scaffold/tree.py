"""A copy of this repository, in which something may be made."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.layout.repository import ROOT, tracked_files


@dataclass(frozen=True)
class Tree:
    """A working tree, or what an installation makes of one."""

    root: Path

    @classmethod
    def copy(cls, root: Path) -> "Tree":
        """Copy what is tracked here, or would be."""
        for path in tracked_files():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, root / path)
        if (ROOT / ".mypy_cache").is_dir():  # types are checked in seconds then
            shutil.copytree(ROOT / ".mypy_cache", root / ".mypy_cache")
        return cls(root)

    def run(self, *module: str) -> subprocess.CompletedProcess[str]:
        """Run a Python module here, with this environment's packages and the tree's own code."""
        return self.python("-m", *module)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python here."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environ | {"PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    def new(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `callboard new`."""
        return self.run("service", "new", *arguments)

    def files(self) -> dict[Path, bytes]:
        """Every file but what tools leave behind."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        tools = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".import_linter_cache"}
        return {path.relative_to(self.root): path.read_bytes() for path in found if not tools & set(path.parts)}
