"""Strict bodies: what is refused, with which status, and that every fault is named."""

import contextlib
import json as stdlib
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import BadRequest, Invalid
from service.web.json_body import MAX_DEPTH, Body, decode


class Template(Body):
    key: str
    variables: dict[str, Any] = msgspec.field(default_factory=dict)


class Mail(Body):
    to: list[Annotated[str, msgspec.Meta(min_length=3)]]
    subject: Annotated[str, msgspec.Meta(max_length=20)] | None = None
    priority: int = 0
    template: Template | None = None
    parts: list[Template] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.subject is None and self.template is None:
            raise ValueError("either `subject` or `template` is required")


GOOD = b'{"to": ["abc"], "subject": "s"}'

UNREADABLE = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"1",
    "text": b'"x"',
    "truncated": b'{"to": ["abc"',
    "trailing": GOOD + b"{}",
    "latin-1": b'{"to": ["abc"], "subject": "\xe9"}',
    "overlong": b'{"to": ["abc"], "subject": "\xc0\x80"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "utf-16-be": GOOD.decode().encode("utf-16-be"),
    "NaN": b'{"to": ["abc"], "priority": NaN}',
    "Infinity": b'{"to": ["abc"], "priority": -Infinity}',
    "1e400": b'{"to": ["abc"], "priority": 1e400}',
    "1e200000": b'{"to": ["abc"], "template": {"key": "k", "variables": {"n": 1e200000}}}',
    "2^63": b'{"to": ["abc"], "template": {"key": "k", "variables": {"n": 9223372036854775808}}}',
    "5000 digits": b'{"to": ["abc"], "priority": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"to": ["abc"], "subject": "a", "subject": "b"}',
    "a key twice, deeper": b'{"to": ["abc"], "template": {"key": "k", "variables": {"a": 1, "a": 1}}}',
    "an escaped key twice": b'{"to": ["abc"], "subject": "a", "s\\u0075bject": "b"}',
    "lone surrogate": b'{"to": ["abc"], "subject": "\\ud800"}',
    "reversed surrogates": b'{"to": ["abc"], "subject": "\\udc00\\ud800"}',
    "deep lists": b'{"to": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"to": ["abc"], "template": {"key": "k", "variables": '
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_002,
    "control character": b'{"to": ["abc"], "subject": "\n"}',
    "single quotes": b"{'to': ['abc']}",
    "comment": b'{"to": ["abc"] /* x */}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_not_one_plain_json_object_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(body, Mail)


BROKEN: dict[str, tuple[bytes, set[str]]] = {
    "text for a number": (b'{"to": ["abc"], "subject": "s", "priority": "5"}', {"/priority"}),
    "float for a number": (b'{"to": ["abc"], "subject": "s", "priority": 5.5}', {"/priority"}),
    "bool for a number": (b'{"to": ["abc"], "subject": "s", "priority": true}', {"/priority"}),
    "number for text": (b'{"to": ["abc"], "subject": 5}', {"/subject"}),
    "unknown field": (b'{"to": ["abc"], "subject": "s", "too": 1}', {"/too"}),
    "missing": (b'{"subject": "s"}', {"/to"}),
    "in a list": (b'{"to": ["abc", 5, "x"], "subject": "s"}', {"/to/1", "/to/2"}),
    "deeper": (
        b'{"to": ["abc"], "template": {"variables": [], "x/y~": 1}}',
        {"/template/key", "/template/variables", "/template/x~1y~0"},
    ),
    "in objects of a list": (
        b'{"to": ["abc"], "subject": "s", "parts": [{"key": "k"}, {}, {"key": 1}]}',
        {"/parts/1/key", "/parts/2/key"},
    ),
    "NUL": (
        b'{"to": ["ab\\u0000c"], "template": {"key": "k", "variables": {"a": ["\\u0000"]}}}',
        {"/to/0", "/template/variables/a/0"},
    ),
    "NUL in a key": (
        b'{"to": ["abc"], "template": {"key": "k", "variables": {"\\u0000": 1}}}',
        {"/template/variables"},
    ),
    "rule of the whole": (b'{"to": ["abc"]}', {""}),
    "everything at once": (
        b'{"subject": "' + b"x" * 21 + b'", "priority": null, "cc": 1, "template": 7}',
        {"/to", "/subject", "/priority", "/cc", "/template"},
    ),
}


@pytest.mark.parametrize(("body", "pointers"), BROKEN.values(), ids=BROKEN.keys())
def test_every_fault_is_named_by_its_pointer(body: bytes, pointers: set[str]) -> None:
    with pytest.raises(Invalid) as caught:
        decode(body, Mail)
    assert {fault.pointer for fault in caught.value.errors} == pointers
    assert all(fault.message.endswith(".") for fault in caught.value.errors)


def test_a_good_body_is_decoded() -> None:
    assert decode(GOOD, Mail) == Mail(to=["abc"], subject="s")


def test_an_escaped_backslash_before_u0000_is_not_nul() -> None:
    assert decode(b'{"to": ["ab\\\\u0000"], "subject": "s"}', Mail).to == ["ab\\u0000"]


def test_faults_are_bounded() -> None:
    with pytest.raises(Invalid) as caught:
        decode(b'{"to": [' + b",".join([b"1"] * 5000) + b'], "subject": "s"}', Mail)
    assert len(caught.value.errors) == 100


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_anything_but_an_answer(body: bytes) -> None:
    with contextlib.suppress(BadRequest, Invalid):
        decode(body, Mail)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(["to", "subject", "priority", "template", "parts", "key", "variables", "x"])


@given(st.dictionaries(names, json | st.dictionaries(names, json)))
def test_a_refusal_of_the_type_always_names_a_fault(value: dict[str, Any]) -> None:
    refusals: list[Invalid] = []
    with contextlib.suppress(BadRequest):
        try:
            decode(stdlib.dumps(value).encode(), Mail)
        except Invalid as error:
            refusals.append(error)
    assert all(refusal.errors for refusal in refusals)


@pytest.mark.parametrize("kind", [b"[%s]", b'{"a":%s}'], ids=["arrays", "objects"])
@pytest.mark.parametrize("around", [0, 100])
def test_a_body_is_so_deep_and_no_deeper_whatever_python_would_read(kind: bytes, around: int) -> None:
    def nested(levels: int) -> bytes:
        value = b"1"
        for _ in range(levels - 3):  # the body, `template` and `variables` are the others
            value = kind % value
        pad = b'"pad": "%s", ' % (b"[" * around)
        return b'{"to": ["abc"], "template": {"key": "k", "variables": {%s"x": %s}}}' % (pad, value)

    decode(nested(MAX_DEPTH), Mail)
    for levels in (MAX_DEPTH + 1, 400, 20_000):
        with pytest.raises(BadRequest, match="nested too deeply: at most 100 levels"):
            decode(nested(levels), Mail)
