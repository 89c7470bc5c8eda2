"""Names of new things: every fault is told, and the words made of a good one are the right ones."""

import pytest

from service.cli.scaffold import names
from service.cli.scaffold.imports import with_imports
from service.cli.scaffold.names import Refused, Words
from service.cli.scaffold.storey import BELOW, STOREYS, with_storey
from tests.layout.repository import ROOT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Notes", ["snake_case"]),
        ("_notes", ["snake_case"]),
        ("no__tes", ["snake_case"]),
        ("no-tes", ["snake_case"]),
        ("1notes", ["snake_case"]),
        ("", ["snake_case"]),
        ("../notes", ["snake_case"]),
        ("nötes", ["snake_case"]),
        ("notes\n", ["snake_case"]),
        ("class", ["keyword"]),
        ("match", ["keyword"]),
        ("list", ["builtin"]),
        ("n" * 21, ["characters"]),
        ("Lambda" * 4, ["snake_case", "characters"]),
        ("user", ["SQL"]),
        ("page", ["spoken for"]),
    ],
)
def test_a_bad_name_is_told_everything_that_is_wrong_with_it(name: str, words: list[str]) -> None:
    found = names.record_faults(name, "the slice")
    assert len(found) == len(words)
    assert all(word in fault and repr(name) in fault for word, fault in zip(words, found, strict=True))


@pytest.mark.parametrize("name", ["notes", "a", "exam_results2", "n" * 20])
def test_a_good_name_has_no_fault(name: str) -> None:
    assert names.record_faults(name, "the slice") == []


@pytest.mark.parametrize(
    ("slice_name", "record"),
    [
        ("notes", "note"),
        ("entries", "entry"),
        ("boxes", "box"),
        ("branches", "branch"),
        ("classes", "class"),
        ("purchases", "purchase"),
        ("exam_results", "exam_result"),
        ("billing", "billing_record"),
        ("status", "status_record"),
    ],
)
def test_one_of_them_is_called_by_the_singular(slice_name: str, record: str) -> None:
    assert names.singular(slice_name) == record


def test_a_record_has_the_forms_that_its_code_uses() -> None:
    words = Words("exam_results", "exam_result", "ex")
    assert (words.model, words.spoken, words.a) == ("ExamResult", "exam result", "an exam result")


@pytest.mark.parametrize(
    ("taken", "chosen"), [(set(), "no"), ({"no"}, "not"), ({"no", "not"}, "note"), ({"no", "not", "note"}, "notex")]
)
def test_a_prefix_is_as_short_as_is_free(taken: set[str], chosen: str) -> None:
    assert names.prefix("note", taken) == chosen


def test_an_import_is_added_only_where_it_is_missing() -> None:
    text = '"""A module."""\n\nfrom uuid import UUID\n\nx = 1\n'
    wanted = {"UUID": "uuid", "actor": "callboard_workers.actors.actor"}
    assert with_imports(text, wanted) == text.replace(
        "UUID\n", "UUID\nfrom callboard_workers.actors.actor import actor\n"
    )
    assert with_imports('"""A module."""\n', {"UUID": "uuid"}) == '"""A module."""\nfrom uuid import UUID\n'


@pytest.mark.parametrize("text", ["def actor(): ...\n", "from stage import actor\n"])
def test_a_module_that_means_something_else_by_a_name_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="something else by 'actor'"):
        with_imports(text, {"actor": "callboard_workers.actors.actor"})


def test_a_new_slice_gets_the_storey_above_the_emails_once() -> None:
    before = (ROOT / ".importlinter").read_text(encoding="utf-8")
    after = with_storey(before, "notes")
    changed = set(after.splitlines()) - set(before.splitlines())
    assert [line.endswith(" | notes") for line in changed] == [True]
    assert after[: after.index(BELOW)].splitlines()[-2] in changed
    assert with_storey(after, "notes") == after


def test_contracts_without_that_storey_are_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="put it back first"):
        with_storey(f"{STOREYS}\nlayers =\n    app\n", "notes")
