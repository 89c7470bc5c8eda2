"""`callboard new` in a copy of this repository: what it writes passes every check at once."""

import shutil
import sys
from pathlib import Path

import pytest

from service.cli.scaffold.checkout import Checkout
from service.cli.scaffold.making import make_actor, make_slice
from service.cli.scaffold.names import PLANNED, Refused
from tests.service.cli.scaffold.tree import Tree

pytestmark = pytest.mark.timeout(300)

SLICE, LONG = "notes", "quarterly_plan_files"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy in which nothing was made."""
    return Tree.copy(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def made(before: Tree, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, dict[str, str]]:
    """A copy of it in which two slices and three actors were made, and what was said about each."""
    copy = Tree(tmp_path_factory.mktemp("made"))
    shutil.copytree(before.root, copy.root, dirs_exist_ok=True)
    said = {}
    for arguments in (("slice", SLICE), ("actor", SLICE, "archive")):
        ended = copy.new(*arguments)
        assert ended.returncode == 0, ended.stderr
        said[" ".join(arguments)] = ended.stdout
    for make, *arguments in (
        (make_slice, LONG),
        (make_actor, LONG, "archive_all_of_these"),
        (make_actor, "emails", "recount"),
    ):
        lines: list[str] = []
        make(Checkout(copy.root), *arguments, lines.append)
        said[" ".join(arguments)] = "\n".join([*lines, ""])
    return copy, said


WRITTEN = [
    *(f"service/{name}/{file}.py" for name in (SLICE, LONG) for file in ("__init__", "models", "actors", "api")),
    *(f"tests/service/{name}/{file}.py" for name in (SLICE, LONG) for file in ("test_api", "test_actors")),
    f"tests/service/{SLICE}/test_actors_archive.py",
    f"tests/service/{LONG}/test_actors_archive_all_of_these.py",
    "tests/service/emails/test_actors_recount.py",
]
CHANGED = ["service/emails/actors.py", ".importlinter"]


def test_it_says_what_it_wrote_and_what_to_do_next(made: tuple[Tree, dict[str, str]]) -> None:
    copy, said = made
    everything = "".join(said.values())
    assert [path for path in WRITTEN if f"wrote   {path}\n" not in everything] == []
    assert [path for path in CHANGED if f"changed {path}\n" not in everything] == []
    assert all("\nnext\n" in text for text in said.values())
    assert all((copy.root / path).is_file() for path in WRITTEN)


def test_it_changes_nothing_else(made: tuple[Tree, dict[str, str]], before: Tree) -> None:
    after, known = made[0].files(), before.files()
    changed = {str(path) for path, text in after.items() if known.get(path) != text}
    migrations = {path for path in changed if path.startswith("migrations/versions/")}
    assert changed - migrations == {*WRITTEN, *CHANGED}
    assert len(migrations) == 2
    assert known.keys() <= after.keys()


def test_what_it_writes_passes_the_linter_the_types_and_the_import_contracts(made: tuple[Tree, dict[str, str]]) -> None:
    copy, _ = made
    paths = [*WRITTEN, "service/emails/actors.py", "migrations/versions"]
    packages = [f"service/{name}" for name in (SLICE, LONG)]
    for arguments in (
        ["ruff", "check", *paths],
        ["ruff", "format", "--check", *paths],
        ["mypy", "--follow-imports=silent", *packages, "service/emails/actors.py"],
    ):
        ended = copy.run(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    contracts = copy.python(str(Path(sys.executable).with_name("lint-imports")), "--no-logo")
    assert contracts.returncode == 0, contracts.stdout + contracts.stderr


def test_its_tests_pass_on_its_own_migration_up_and_down(made: tuple[Tree, dict[str, str]]) -> None:
    copy, _ = made
    folders = [f"tests/service/{SLICE}", f"tests/service/{LONG}/test_actors.py", "tests/service/db/test_models.py"]
    ended = copy.run("pytest", "-q", *folders, "tests/service/emails/test_actors_recount.py")
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert "skipped" not in ended.stdout


TAKEN = ["/{0} exists", "tests/service/{0} exists", "a migration makes a table", "a route begins with it"]


@pytest.mark.parametrize(
    ("arguments", "options", "faults"),
    [
        (["slice", "Notes-1"], {}, ["'Notes-1' is not snake_case"]),
        (["slice", "digests"], {}, ["a migration makes a table"]),
        (["slice", "templates"], {}, ["spoken for", *(fault.format("templates") for fault in TAKEN)]),
        (["slice", "emails"], {}, [fault.format("emails") for fault in TAKEN]),
        (["slice", SLICE], {}, [fault.format(SLICE) for fault in TAKEN]),
        (["slice", "settings"], {}, ["service/settings exists"]),
        (["slice", "class"], {}, ["keyword of Python"]),
        (["slice", "pages"], {}, ["would be 'page', which is spoken for: name it with --record"]),
        (["slice", "dramas"], {"record": "Session"}, ["'Session' is not snake_case"]),
        (["slice", "dramas"], {"record": "dramas"}, ["is called as the slice is"]),
        (["actor", SLICE, "process"], {}, ["has a process"]),
        (["actor", SLICE, "current"], {}, ["has a current"]),
        (["actor", "emails", "send_email"], {}, ["has a send_email"]),
        (["actor", "nowhere", "Is-It"], {}, ["'Is-It' is not snake_case", "no slice 'nowhere'"]),
        (["actor", "..", "is_it"], {}, ["no slice '..'"]),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_with_every_fault_and_nothing_is_written(
    made: tuple[Tree, dict[str, str]], arguments: list[str], options: dict[str, str], faults: list[str]
) -> None:
    copy, _ = made
    known = copy.files()
    what, *rest = arguments
    with pytest.raises(Refused) as refused:
        {"slice": make_slice, "actor": make_actor}[what](Checkout(copy.root), *rest, print, **options)
    told = refused.value.faults
    assert len(told) == len(faults)
    assert [fault for fault, line in zip(faults, told, strict=True) if fault not in line] == []
    assert copy.files() == known


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_a_room_that_has_its_place_is_not_for_a_slice(before: Tree, name: str) -> None:
    with pytest.raises(Refused, match="reserved room"):
        make_slice(Checkout(before.root), name, print)


def test_migrations_with_two_ends_are_refused(before: Tree, tmp_path: Path) -> None:
    shutil.copytree(before.root / "migrations", tmp_path / "migrations")
    for name in ("left", "right"):
        text = f'revision = "{name}"\ndown_revision = "{Checkout(before.root).head()}"\n'
        (tmp_path / "migrations" / "versions" / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.raises(Refused, match=r"several ends \((left, right|right, left)\)"):
        Checkout(tmp_path).head()


def test_a_refusal_is_told_line_by_line_and_ends_badly(before: Tree) -> None:
    ended = before.new("slice", "Emails", "--record", "page")
    assert ended.returncode == 1
    assert ended.stderr.startswith("nothing was written:\n  the slice 'Emails' is not snake_case")
    assert "\n  the record 'page' is spoken for" in ended.stderr


def test_a_file_that_exists_is_never_written_over(made: tuple[Tree, dict[str, str]]) -> None:
    copy, _ = made
    there = copy.root / "tests" / "service" / SLICE / "test_actors_keep.py"
    there.write_text("precious\n", encoding="utf-8")
    actors = (copy.root / "service" / SLICE / "actors.py").read_bytes()
    with pytest.raises(Refused, match=r"test_actors_keep\.py exists, and is not written over"):
        make_actor(Checkout(copy.root), SLICE, "keep", print)
    assert there.read_text(encoding="utf-8") == "precious\n"
    assert (copy.root / "service" / SLICE / "actors.py").read_bytes() == actors
    there.unlink()


def test_an_installed_package_says_that_it_needs_a_checkout(before: Tree, tmp_path: Path) -> None:
    """Installed, the migrations lie inside the package and there are no tests."""
    for name in ("service", "workers"):
        shutil.copytree(before.root / name, tmp_path / name)
    shutil.copytree(before.root / "migrations", tmp_path / "service" / "_migrations")
    ended = Tree(tmp_path).new("slice", SLICE)
    assert ended.returncode == 1
    assert "installed, not checked out" in ended.stderr
    assert not (tmp_path / "service" / SLICE).exists()
