"""The hostile list: sixty-seven kinds of input that hurt such services. Each is refused, stores nothing, and is no 500.

Most are thrown at the whole API here; `ELSEWHERE` names the tests of those that need more than a request.
"""

# ruff: noqa: E501 (tables: one attack, or one kind of it, to a line)

import ast
import json
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.layout.repository import ROOT
from tests.service.conftest import MakeKey, client_of

MAIL = {"to": "ada@example.org", "subject": "Hello", "text": "Good morning."}
JSON = {"Content-Type": "application/json"}
LONG = "x" * 100_000

Attack = tuple[int, Any, dict[str, Any]]
"""The number on the list, the answer or answers that are right, and the request: `json` is of a mail."""


def mail(number: int, status: Any = 422, **fields: Any) -> Attack:
    return number, status, {"json": MAIL | fields}


def raw(number: int, status: int, content: bytes, **headers: str) -> Attack:
    return number, status, {"content": content, "headers": JSON | headers}


def path(number: int, status: Any, url: str, method: str = "GET", **more: Any) -> Attack:
    return number, status, {"method": method, "url": url, **more}


def body(**fields: Any) -> bytes:
    return json.dumps(MAIL | fields).encode()


CONTROLS = ["\r\n", "\r", "\n", "\x85", "\u2028", "\x0b", "\x0c"]
INJECTION = "=?utf-8?q?hi=0ABcc:_e@example.org?="
ADDRESSES = {
    14: ["a@b.example, evil@e.example"],
    15: ["alice@example.org]>", "alice@example.org]"],
    16: ["<a@b.example>(comment)"],
    17: ["d@e.example> NOTIFY=SUCCESS", ">\r\nRCPT TO:<e@e.example>", "d@e.example\r\nRCPT TO:<x@e.example>"],
    18: ["x" * 65 + "@example.org", "a@" + "d." * 130 + "org", "a@" + "l" * 64 + ".org"],
    21: ["a@[127.0.0.1]", "a@localhost", "a@x.internal"],
}

ATTACKS: list[Attack] = [
    *(mail(1, subject=f"Hi{control}Bcc: e@example.org") for control in CONTROLS),
    mail(2, subject=INJECTION),
    mail(3, to=f'"{INJECTION}" <ada@example.org>'),
    *(mail(5, 403, **{"from": sender}) for sender in ("ceo@bank.example", "Bank <x@callboard.example.bank.example>")),
    mail(6, reply_to="a@b.example\r\nBcc: e@example.org"),
    mail(6, **{"from": "a@b.example\nBcc: e@example.org"}),
    *(mail(7, headers={name: "v"}) for name in ("X-A: v\r\nBcc", "X A", "X-É", "X-" + "a" * 61, "")),
    *(mail(8, headers={name: "v"}) for name in ("Bcc", "From", "DKIM-Signature", "Received", "Content-Type", "to")),
    *(mail(9, headers={"X-A": f"a{chr(code)}b"}) for code in (0, 1, 7, 27, 127)),
    *(mail(9, subject=f"a{chr(code)}b") for code in (0, 1, 27, 127)),
    raw(10, 400, body().replace(b"Hello", b"\\ud800")),
    raw(10, 400, body(metadata={"a": "x"}).replace(b'"x"', b'"\\udfff"')),
    mail(11, subject=LONG),
    *(
        mail(13, attachments=[{"filename": "a", "content": "", "content_type": kind}])
        for kind in ("text/html\r\nX:", "x")
    ),
    *(mail(number, to=address) for number, addresses in ADDRESSES.items() for address in addresses),
    mail(20, to="ünïcode\r\n@example.org"),
    mail(23, to=[f"a{n}@example.org" for n in range(10_000)]),
    raw(26, 413, b"[" + b"1," * 15_000_000),
    raw(27, 400, b"[" * 100_000),
    raw(27, 400, b'{"a":' * 100_000),
    *(
        raw(27, 400, body(metadata={"x": 1}).replace(b"1}", b"[" * depth + b"]" * depth + b"}"))
        for depth in (99, 500, 5_000)
    ),
    raw(28, 400, body().replace(b"Hello", b"\xff\xfe")),
    *(
        raw(29, 400, body(metadata={"x": 1}).replace(b"1}", word + b"}"))
        for word in (b"NaN", b"Infinity", b"-Infinity")
    ),
    *(raw(30, 400, body(metadata={"x": 1}).replace(b"1}", word + b"}")) for word in (b"1e400", b"1e200000", b"-1e999")),
    raw(31, 400, body(metadata={"x": 1}).replace(b"1}", b"9" * 5_000 + b"}")),
    raw(31, 400, body(metadata={"x": 2**63})),
    raw(32, 400, body()[:-1] + b', "to": "evil@e.example"}'),
    mail(33, priority="5"),
    mail(33, lane=5),
    mail(33, tags="no-list"),
    *(
        raw(34, 415, body(), **{"Content-Type": kind})
        for kind in ("text/plain", "application/xml", "", "multipart/form-data")
    ),
    *(
        raw(35, 415, b"\x1f\x8b" + b"\0" * 100, **{"Content-Encoding": kind})
        for kind in ("gzip", "br", "zstd", "x, gzip")
    ),
    mail(36, text="a\0b"),
    mail(36, metadata={"a\0": "b"}),
    raw(36, 422, body(metadata={"x": 1}).replace(b"1}", b'"\\u0000"}')),
    *(raw(37, 400, content) for content in (b"", b"[]", b"null", b"1", b'"x"', b"{", b"{}{}")),
    *(
        raw(38, 400, content)
        for content in (b"\xef\xbb\xbf" + body(), body().decode().encode("utf-16"), body().decode().encode("utf-32"))
    ),
    *(
        mail(40, scheduled_at=moment)
        for moment in (
            "9999-12-31T23:59:59Z",
            "2027-12-31T00:00:00",
            "2028-11-30T00:00:00-23:59",
            "0001-01-01T00:00:00",
            5,
        )
    ),
    mail(41, scheduled_at="2126-12-02T00:00:00Z", expires_at="2126-12-01T00:00:00Z"),
    *(
        mail(42, template={"key": "welcome", "locale": locale, "variables": {"name": "A"}})
        for locale in ("../../etc", "e\0n")
    ),
    *(mail(44, lane=lane) for lane in ("-1", "critical\0", "")),
    *(path(45, 400, f"/v1/emails?cursor={cursor}") for cursor in ("x", "AAAA", "%F0%9F%92%A9", "." * 1000)),
    *(path(46, 400, f"/v1/emails?limit={limit}") for limit in ("0", "-1", "1e23", "99999999999999999999", "", "a")),
    *(
        path(47, 404, f"/v1/{tail}")
        for tail in ("emails/..%2f..%2fetc%2fpasswd", "emails/%ff", "emails/%00", "%2e%2e/%2e%2e")
    ),
    *(
        path(47, 404, f"/v1/emails/{id}")
        for id in ("em_", "em_" + "0" * 31, "em_" + "g" * 32, "' OR 1=1 --", "%F0%9F%92%A9")
    ),
    *(raw(48, 400, body(), **{"Idempotency-Key": key}) for key in ("", "x" * 300, "a\tb", '""')),
    *(
        mail(54, template={"key": key, "variables": {}})
        for key in ("../../etc/passwd", "_layout", "welcome/body", "a" * 500)
    ),
    *(path(63, 401, f"/v1/emails?{query}") for query in ("key=cb_live_" + "a" * 38, "cb%5Ftest%5Fx")),
    *(path(67, 404, f"/u/{token}") for token in ("x", "a.b.c", "%00", "x" * 5_000)),
]
"""What is refused with a plain request. A mail that is refused is stored by nobody."""

TAKEN: list[Attack] = [
    mail(4, 202, to='"x\\" <evil@example.org>, \\"y" <ada@example.org>'),
    *(
        mail(12, 202, attachments=[{"filename": name, "content": ""}])
        for name in ("../../x", "a\u202egpj.exe", "n" * 10_000)
    ),
    mail(19, 202, to="ada@bücher.example"),
    mail(22, 202, to="-oQ/tmp@b.example"),
    mail(24, 202, to=["ada@example.org"] * 40),
    mail(25, 202, text="\n.\r\nMAIL FROM:<e@example.org>\r\n\r.\r"),
    mail(64, 202, attachments=[{"filename": "eicar.com", "content": "WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FS"}]),
]
"""What looks hostile and is data: taken, and made harmless on the way out."""

ELSEWHERE = {
    2: "tests/service/mail/test_message.py::test_an_encoded_injection_in_a_name_is_caught_even_past_the_parser",
    4: "tests/service/mail/test_message.py::test_a_display_name_that_plays_an_address_is_one_mailbox",
    12: "tests/service/mail/test_attachments.py::test_any_name_becomes_safe_and_stays_so",
    19: "tests/service/mail/test_addresses.py::test_mixed_scripts_are_flagged_however_they_are_spelt",
    20: "tests/service/mail/test_addresses.py::test_an_international_local_part_asks_for_smtputf8",
    24: "tests/service/emails/test_api_rules.py::test_a_recipient_named_twice_gets_one_copy",
    25: "tests/service/mail/test_message.py::test_every_line_of_a_body_ends_in_crlf_and_none_is_too_long",
    26: "tests/service/web/test_hostile.py::test_a_body_over_the_limit_is_cut_while_it_streams",
    39: "tests/service/cli/test_api_server.py",
    43: "tests/workers/test_cron.py",
    45: "tests/service/web/test_hostile.py::test_a_cursor_is_bound_to_tenant_filter_and_list",
    48: "tests/service/web/test_idempotency.py::test_tenants_do_not_share_keys",
    49: "tests/service/templates/tenant/test_sandbox.py::test_what_is_forbidden_is_a_fault_that_names_its_place",
    50: "tests/service/templates/tenant/test_sandbox.py::test_what_overfills_is_a_fault_or_ends_its_process_alone",
    51: "tests/service/templates/tenant/test_sandbox.py::test_what_does_not_end_is_killed_and_another_takes_its_place",
    52: "tests/service/templates/tenant/test_sandbox.py::test_what_overfills_is_a_fault_or_ends_its_process_alone",
    53: "tests/service/templates/test_api.py::test_what_cannot_be_a_template_is_refused_with_its_place",
    54: "tests/service/templates/tenant/test_sandbox.py::test_markup_reaches_neither_files_nor_the_network_nor_the_service",
    55: "tests/service/templates/tenant/test_sandbox.py::test_a_variable_is_data_in_html",
    56: "tests/service/egress/test_ip_ranges.py::test_nothing_inside_may_be_called_however_it_is_wrapped",
    57: "tests/service/egress/test_client.py::test_the_address_that_was_checked_is_the_one_that_is_connected",
    58: "tests/service/webhooks/test_signing.py::test_a_secret_that_the_specification_does_not_allow_is_refused",
    59: "tests/service/egress/test_client.py::test_a_gzip_bomb_stays_closed",
    60: "tests/wire/test_signing.py::test_a_forgery_is_a_dead_letter_and_never_runs",
    61: "tests/wire/test_signing.py::test_a_verb_that_is_not_allowed_does_nothing",
    62: "tests/service/tasks/test_api.py",
    63: "tests/service/web/test_middleware.py::test_a_broken_checksum_is_refused_without_a_look_at_the_database",
    65: "tests/service/feeds/test_stream_api.py::test_a_number_that_never_was_is_refused",
    66: "tests/service/web/test_hostile.py::test_a_request_id_that_could_harm_a_log_is_replaced",
    67: "tests/service/suppressions/test_unsubscribe.py",
}
"""Tests, or whole files of them, that show the rest."""


def name(attack: Attack) -> str:
    return f"{attack[0]:02}"


@pytest.fixture
def shallow() -> Iterator[None]:
    """Python's own limit of recursion, as a server has it: hypothesis raises it for the whole process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
async def thrown(settings: Settings, make_key: MakeKey, shallow: None) -> AsyncIterator[Any]:
    async with client_of(settings) as client:
        client.headers["Authorization"] = f"Bearer {await make_key()}"

        async def throw(attack: Attack) -> httpx.Response:
            request = {"method": "POST", "url": "/v1/emails", **attack[2]}
            return await client.request(**request)

        yield throw


async def test_every_attack_is_refused_in_words_and_nothing_is_stored(thrown: Any, engine: AsyncEngine) -> None:
    wrong = []
    for number, status, request in ATTACKS:
        answer = await thrown((number, status, request))
        told = answer.headers.get("content-type", "")
        if answer.status_code != status or not told.startswith("application/problem+json"):
            wrong.append((number, status, answer.status_code, str(request)[:200], answer.text[:200]))
    assert not wrong
    async with engine.connect() as connection:
        for table in ("emails", "messages", "idempotency_keys"):
            assert not (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one(), table


async def test_what_only_looks_hostile_is_taken(thrown: Any) -> None:
    wrong = []
    for attack in TAKEN:
        answer = await thrown(attack)
        if answer.status_code != attack[1]:
            wrong.append((attack[0], answer.status_code, answer.text[:300]))
    assert not wrong


def test_every_item_of_the_list_is_shown() -> None:
    here = {attack[0] for attack in (*ATTACKS, *TAKEN)}
    assert here | ELSEWHERE.keys() == set(range(1, 68))


@pytest.mark.parametrize("number", ELSEWHERE)
def test_the_test_of_an_item_exists(number: int) -> None:
    file, _, wanted = ELSEWHERE[number].partition("::")
    assert not wanted or wanted in functions(file)
    assert functions(file)


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(each for each in found if each.startswith("test_"))
