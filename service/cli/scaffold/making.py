"""Makes a slice, or an actor in one: checks, writes, and says what was written and what to do next."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

from service.cli.scaffold import names
from service.cli.scaffold.checkout import Checkout
from service.cli.scaffold.imports import with_imports
from service.cli.scaffold.names import Refused, Words
from service.cli.scaffold.storey import with_storey
from service.cli.scaffold.writing import create, render, shape

Say = Callable[[str], object]

LINTER = Path(".importlinter")


def make_slice(checkout: Checkout, name: str, say: Say, *, record: str | None = None) -> None:
    """Write a slice: what it stores, does and is asked, its migration and its tests. Raises Refused."""
    words = _words(checkout, name, record)
    head = checkout.head()
    revision = f"{dt.datetime.now(dt.UTC):%Y%m%d}_{name}"
    contracts = with_storey((checkout.root / LINTER).read_text(encoding="utf-8"), name)
    known = {"words": words, "revision": revision, "down_revision": head}
    places = {
        Path("service", name, "__init__.py"): "slice",
        Path("service", name, "models.py"): "models",
        Path("service", name, "actors.py"): "actors",
        Path("service", name, "api.py"): "api",
        Path("migrations", "versions", f"{revision}.py"): "migration",
        Path("tests", "service", name, "test_api.py"): "test_api",
        Path("tests", "service", name, "test_actors.py"): "test_actors",
    }
    create(checkout.root, {path: render(template, **known) for path, template in places.items()})
    (checkout.root / LINTER).write_text(contracts, encoding="utf-8")
    shaped = shape(checkout.root, list(places))
    _tell(say, [f"wrote   {path}" for path in places] + [f"changed {LINTER}"], shaped)
    say(
        f"\nnext\n"
        f"  change the tests, then the code: all of it passes now (python3 start test tests/service/{name})\n"
        f"  change the table and its migration together, then give it to your database (callboard migrate)\n"
        f"  add another actor (callboard new actor {name} NAME)\n"
        f"  tell those who will use it (a line in CHANGELOG.md)"
    )


def make_actor(checkout: Checkout, slice_name: str, name: str, say: Say) -> None:
    """Write an actor into `service/<slice>/actors.py`, and a test of it. Raises Refused."""
    actors = Path("service", slice_name, "actors.py")
    test = Path("tests", "service", slice_name, f"test_actors_{name}.py")
    _check_actor(checkout, slice_name, name, actors)
    known = {"slice": slice_name, "name": name}
    before = (checkout.root / actors).read_text(encoding="utf-8")
    wanted = {"UUID": "uuid", "actor": "callboard_workers.actors.actor", "current": "callboard_workers.context"}
    after = with_imports(before, wanted).rstrip() + "\n\n\n" + render("actor", **known)
    create(checkout.root, {test: render("test_actor", **known)})
    (checkout.root / actors).write_text(after, encoding="utf-8")
    shaped = shape(checkout.root, [actors, test])
    _tell(say, [f"wrote   {test}", f"changed {actors}"], shaped)
    say(
        f"\nnext\n"
        f"  change the test, then the actor: both pass now (python3 start test {test})\n"
        f"  send it from a route or another actor, in its transaction: await {name}.enqueue(session, id)\n"
        f"  choose its options, and how an attempt may end (docs/actors.md)"
    )


def _words(checkout: Checkout, name: str, record: str | None) -> Words:
    faults = names.record_faults(name, "the slice") + checkout.slice_faults(name)
    one = names.singular(name) if record is None else record
    if record is not None:
        faults += names.record_faults(record, "the record")
        if record == name:
            faults.append(f"the record {record!r} is called as the slice is: name one of what it stores")
    elif not faults and one in names.SPOKEN_FOR:
        faults.append(f"one of {name!r} would be {one!r}, which is spoken for: name it with --record")
    if faults:
        raise Refused(faults)
    return Words(name, one, names.prefix(one, checkout.prefixes()))


def _check_actor(checkout: Checkout, slice_name: str, name: str, actors: Path) -> None:
    faults = names.faults(name, "the actor")
    if slice_name not in checkout.slices():
        known = ", ".join(checkout.slices())
        faults.append(f"no slice {slice_name!r} has actors ({known} do); `callboard new slice` makes one")
    elif name in checkout.names_in(actors):
        faults.append(f"the actor {name!r} is taken: {actors} has a {name}")
    if faults:
        raise Refused(faults)


def _tell(say: Say, lines: list[str], shaped: bool) -> None:
    for line in lines:
        say(line)
    if not shaped:
        say("ruff is not installed, so nothing is formatted: `python3 start run ruff format .`")
