"""Cursors: only the one spelling that was handed out opens."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from service.core.errors import BadRequest
from service.web.pagination import bound, seal, unseal

SECRET = b"s" * 32
BELONGS = bound(uuid7(), "/v1/books", {"title": "a", "code": None}, "-id")


@given(st.lists(st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=3))
def test_what_is_sealed_opens(key: list[str | int]) -> None:
    assert unseal(SECRET, BELONGS, seal(SECRET, BELONGS, key)) == key


def test_no_changed_character_opens() -> None:
    cursor = seal(SECRET, BELONGS, [str(uuid7())])
    for place in range(len(cursor)):
        for character in string.ascii_letters + string.digits + "-_=":
            if character != cursor[place]:
                with pytest.raises(BadRequest):
                    unseal(SECRET, BELONGS, cursor[:place] + character + cursor[place + 1 :])


@given(st.text(max_size=100))
def test_nothing_made_up_opens(cursor: str) -> None:
    with pytest.raises(BadRequest):
        unseal(SECRET, BELONGS, cursor)


def test_another_filter_or_key_does_not_open() -> None:
    cursor = seal(SECRET, BELONGS, ["x"])
    for secret, belongs in ((b"t" * 32, BELONGS), (SECRET, BELONGS + b" ")):
        with pytest.raises(BadRequest):
            unseal(secret, belongs, cursor)
