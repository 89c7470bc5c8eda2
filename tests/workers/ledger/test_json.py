"""JSON that Postgres takes keeps the shape of what was reported, whatever text is in it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from callboard_workers.ledger.json import storable

ID, NOON = UUID(int=7), datetime(2026, 1, 12, 12, tzinfo=UTC)


class Page(msgspec.Struct):
    """A part of a report."""

    text: str
    made_at: datetime
    id: UUID
    by_number: dict[int, str]


@dataclass
class Note:
    """Another."""

    page: Page
    rest: Any = None


PAGE = {"made_at": "2026-01-12T12:00:00Z", "id": str(ID), "by_number": {"1": "one"}}


@pytest.mark.parametrize(("text", "kept"), [("a\x00b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("ab", "ab")])
def test_text_that_postgres_refuses_is_replaced_and_nothing_else(text: str, kept: str) -> None:
    page = Page(text, NOON, ID, {1: "one"})
    assert json.loads(storable(page)) == {"text": kept, **PAGE}
    assert json.loads(storable({"notes": [Note(page, {ID})]})) == {
        "notes": [{"page": {"text": kept, **PAGE}, "rest": [str(ID)]}]
    }


def test_what_json_has_no_word_for_is_its_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd\x00"

    assert json.loads(storable([Odd(), Note(Page("", NOON, ID, {}), Odd())]))[0] == "odd\ufffd"
    assert isinstance(json.loads(storable(["\x00", Note(Page("", NOON, ID, {}), {(1, 2): 3})]))[1], str)
