"""Documents do not drift: links lead somewhere, the settings are all there, the folders they name exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from service.web.json_body import MAX_DEPTH
from tests.layout import api_reference
from tests.layout.repository import ROOT, tracked_files
from tests.layout.settings_reference import REFERENCE, describe, render

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def links_of(path: Path) -> list[str]:
    text = FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))
    return [first or second for first, second in LINK.findall(text)]


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """The anchors GitHub makes of a document's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("document", documents(), ids=str)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(document: Path) -> None:
    broken = []
    for link in links_of(document):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (ROOT / document).parent / target if target else ROOT / document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file.resolve())):
            broken.append(link)
    assert not broken


def test_every_document_in_docs_can_be_reached_from_its_index() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "docs" / "index.md"]
    while todo:
        document = todo.pop().resolve()
        if document in seen or document.suffix != ".md":
            continue
        seen.add(document)
        relative = document.relative_to(ROOT)
        todo += [
            document.parent / link.partition("#")[0] for link in links_of(relative) if not re.match(r"[a-z]+:|#", link)
        ]
    lost = [str(path) for path in documents() if path.parts[0] == "docs" and (ROOT / path) not in seen]
    assert not lost


def test_the_example_environment_names_every_setting_with_its_default() -> None:
    """Write it anew with `python3 start run python -m tests.layout.settings_reference`."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == describe().rstrip() + "\n"


def test_the_settings_reference_names_every_setting_with_its_default() -> None:
    """Write it anew with `python3 start run python -m tests.layout.settings_reference`."""
    assert REFERENCE.read_text(encoding="utf-8") == render()


def test_the_api_reference_names_every_route_with_its_scope() -> None:
    """Write it anew with `python3 start run python -m tests.layout.settings_reference`."""
    assert api_reference.REFERENCE.read_text(encoding="utf-8").endswith(api_reference.render())


def test_the_api_reference_says_how_deep_a_body_may_be() -> None:
    assert f"nested at most {MAX_DEPTH} levels" in api_reference.REFERENCE.read_text(encoding="utf-8")


def test_the_folders_of_the_architecture_page_exist() -> None:
    """Every path in the drawing of the rooms is a file or folder of the repository."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w./]+)` \|", page, re.MULTILINE)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
