"""Arguments arrive as the types that the function declares, or are refused by name."""

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from callboard_workers.actors.parameters import Parameters
from callboard_workers.errors import BadArguments


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: int = 0


def rich(id: UUID, at: dt.datetime, *, colour: Colour = Colour.RED, where: Point | None = None) -> None: ...


def travel(parameters: Parameters, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Through JSON and back."""
    return parameters.decode(*json.loads(json.dumps(parameters.encode(args, kwargs))))


def test_types_survive_the_journey() -> None:
    id, at = uuid7(), dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert travel(Parameters(rich), id, at) == ((id, at), {})
    assert travel(Parameters(rich), id, at=at, colour=Colour.RED, where=Point(1, 2)) == (
        (id, at),
        {"colour": Colour.RED, "where": Point(1, 2)},
    )


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.dictionaries(st.integers(-1000, 1000), st.text(st.characters(exclude_categories=["Cs"]))),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(),
)
def test_plain_values_of_all_kinds_survive_the_journey(
    numbers: list[int], names: dict[int, str], amount: Decimal, raw: bytes
) -> None:
    def takes(numbers: list[int], names: dict[int, str], amount: Decimal, raw: bytes) -> None: ...

    assert travel(Parameters(takes), numbers, names, amount, raw) == ((numbers, names, amount, raw), {})


def test_values_that_arrive_typed_already_are_taken() -> None:
    id, at = uuid7(), dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert Parameters(rich).decode([id, at], {}) == ((id, at), {})


def test_variable_arguments_are_typed_too() -> None:
    def takes(*ids: int, **more: float) -> None: ...

    assert travel(Parameters(takes), 1, 2, a=3) == ((1, 2), {"a": 3.0})
    with pytest.raises(BadArguments):
        Parameters(takes).decode(["x"], {})


def test_what_is_not_annotated_passes_as_it_is() -> None:
    def takes(a, b=2) -> None: ...  # type: ignore[no-untyped-def]

    assert Parameters(takes).decode([{"x": [1]}], {}) == (({"x": [1]},), {})


def test_every_argument_that_does_not_fit_is_named() -> None:
    with pytest.raises(BadArguments) as caught:
        Parameters(rich).decode(["nope", "never"], {"colour": "blue"})
    assert all(name in str(caught.value) for name in ("id:", "at:", "colour:"))


@pytest.mark.parametrize(("args", "kwargs"), [([], {}), ([1], {}), ([1, 2, 3], {}), ([1, 2], {"nope": 1})])
def test_the_wrong_arguments_are_refused(args: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(BadArguments):
        Parameters(rich).decode(args, kwargs)


def test_numbers_are_not_read_from_text() -> None:
    def takes(n: int) -> None: ...

    with pytest.raises(BadArguments, match="n: Expected `int`, got `str`"):
        Parameters(takes).decode(["5"], {})
