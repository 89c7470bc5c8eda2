"""The checkout that new code is written into: what is there, and what is taken."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory

from service.cli.scaffold.names import PLANNED, Refused

PARTS = ("pyproject.toml", ".importlinter", "migrations", "tests")
TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?\"?(\w+)\"?", re.IGNORECASE)
ROUTE = re.compile(r"\"/(?:v1/)?([a-z][a-z0-9_-]*)[/\"]")
PREFIX = re.compile(r"\"([a-z]{2,})_(?:\{|\"|\()")


@dataclass(frozen=True)
class Checkout:
    """A working tree of Callboard."""

    root: Path

    @classmethod
    def here(cls) -> "Checkout":
        """The checkout that this code runs from. Raises Refused for an installed package: it has no tests to write."""
        root = Path(__file__).resolve().parents[3]
        if not all((root / name).exists() for name in PARTS):
            raise Refused(
                [
                    "this Callboard is installed, not checked out: new code is written into a checkout."
                    " Clone the repository and run `python3 start new …` there"
                ]
            )
        return cls(root)

    @property
    def service(self) -> Path:
        """The folder of the slices."""
        return self.root / "service"

    def head(self) -> str:
        """The newest migration. Raises Refused where there are several."""
        heads = ScriptDirectory(self.root / "migrations").get_heads()
        if len(heads) != 1:
            fault = f"the migrations have several ends ({', '.join(heads)}): put them in a row first"
            raise Refused([fault])
        return heads[0]

    def slice_faults(self, name: str) -> list[str]:
        """Why there cannot be a new slice of this name: everything that has it already."""
        found = []
        if name in PLANNED:
            found.append(f"the slice {name!r} is a reserved room: {PLANNED[name]}")
        if (self.service / name).exists() or (self.service / f"{name}.py").exists():
            found.append(f"the slice {name!r} is taken: service/{name} exists")
        if (self.root / "tests" / "service" / name).exists():
            found.append(f"the slice {name!r} is taken: tests/service/{name} exists")
        if name in self._mentions(self.root / "migrations" / "versions", TABLE):
            found.append(f"the slice {name!r} is taken: a migration makes a table of this name")
        if name in self._mentions(self.service, ROUTE):
            found.append(f"the slice {name!r} is taken: a route begins with it")
        return found

    def prefixes(self) -> set[str]:
        """The prefixes of ids that are in use."""
        return self._mentions(self.service, PREFIX)

    def names_in(self, path: Path) -> set[str]:
        """What a module binds at its top level."""
        bound: set[str] = set()
        for node in ast.parse((self.root / path).read_text(encoding="utf-8")).body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    bound.add(node.name)
                case ast.Import() | ast.ImportFrom():
                    bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
                case ast.Assign():
                    bound.update(target.id for target in node.targets if isinstance(target, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    bound.add(name)
                case _:
                    pass
        return bound

    def slices(self) -> list[str]:
        """The slices that have actors."""
        return sorted(found.parent.name for found in self.service.glob("*/actors.py"))

    def _mentions(self, folder: Path, pattern: re.Pattern[str]) -> set[str]:
        texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
        return {name for text in texts for name in pattern.findall(text)}
