"""A request for a mail is refused with every fault at once, each with its JSON pointer."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from uuid_utils.compat import uuid7

from service.core.errors import Forbidden, Invalid
from service.domains.sender_policy import House
from service.emails.insert_columns import COLUMNS, row
from service.emails.prepare import Draft, draft, moment
from service.emails.schemas import EmailRequest
from service.mail.address_text import read_back, spell

HOUSE = House.of("Callboard <mail@callboard.example>", ("Partner.example",))
GOOD = {"to": "ada@example.org", "subject": "Hello", "text": "Good morning."}


def asked(**fields: Any) -> EmailRequest:
    return msgspec.convert({**GOOD, **fields}, EmailRequest)


def made(**fields: Any) -> Draft:
    return draft(asked(**fields), HOUSE)


def pointers(**fields: Any) -> set[str]:
    with pytest.raises(Invalid) as refused:
        draft(asked(**fields), HOUSE)
    return {fault.pointer for fault in refused.value.errors}


def test_every_fault_of_a_request_is_named_at_once() -> None:
    found = pointers(
        to=["ada@example.org", "nobody", "x@y@z"],
        cc="a@b.example\r\nBcc: evil@example.org",
        subject="line\nbreak",
        headers={"Bcc": "evil@example.org", "X-Fine": "yes"},
        tags=["fine", "not fine"],
        metadata={"deep": ["\0"]},
        category="",
        dedup_key="with space",
        scheduled_at="2001-01-01T00:00:00Z",
        expires_at="2030-01-01T00:00:00",
        attachments=[{"filename": "a", "content": "aGk=", "content_type": "text/html\r\nX: y"}],
    )
    assert found == {
        "/to/1", "/to/2", "/cc", "/subject", "/headers/Bcc", "/tags/1", "/metadata", "/category",
        "/dedup_key", "/scheduled_at", "/expires_at", "/attachments/0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"to": []}, "/to"),
        ({"to": [f"u{n}@example.org" for n in range(51)]}, "/to"),
        ({"to": ["ada@example.org"] * 10_000}, "/to"),
        ({"to": "a@b.example, evil@example.org"}, "/to"),
        ({"to": "d@e.example> NOTIFY=SUCCESS"}, "/to"),
        ({"reply_to": "a@localhost"}, "/reply_to"),
        ({"subject": "=?utf-8?q?hi=0ABcc:_e@e?="}, "/subject"),
        ({"subject": "x" * 999}, "/subject"),
        ({"subject": None}, "/subject"),
        ({"text": None}, "/html"),
        ({"text": "a\0b"}, "/text"),
        ({"html": "x" * (2 * 1024 * 1024 + 1)}, "/html"),
        ({"metadata": {"key": "x" * 70_000}}, "/metadata"),
        ({"tags": [f"t{n}" for n in range(21)]}, "/tags"),
        ({"scheduled_at": "9999-01-01T00:00:00Z"}, "/scheduled_at"),
        ({"scheduled_at": "2999-01-01T00:00:00-14:01"}, "/scheduled_at"),
        ({"attachments": [{"filename": "a", "content": ""}] * 21}, "/attachments"),
        ({"template": {"key": "welcome", "variables": {"name": "Ada"}}}, "/subject"),
    ],
)
def test_a_fault_is_pointed_at(fields: dict[str, Any], pointer: str) -> None:
    assert pointer in pointers(**fields)


def test_a_template_brings_subject_and_bodies_and_all_its_missing_variables_are_named() -> None:
    with pytest.raises(Invalid) as refused:
        draft(msgspec.convert({"to": "a@example.org", "template": {"key": "course_enrollment"}}, EmailRequest), HOUSE)
    found = {fault.pointer for fault in refused.value.errors}
    assert found == {f"/template/variables/{name}" for name in ("name", "course_name", "course_url")}


def test_an_unknown_template_is_named_with_those_that_there_are() -> None:
    with pytest.raises(Invalid) as refused:
        draft(msgspec.convert({"to": "a@example.org", "template": {"key": "nope"}}, EmailRequest), HOUSE)
    (fault,) = refused.value.errors
    assert fault.pointer == "/template/key"
    assert "welcome" in fault.message


def test_expiry_must_come_after_the_scheduled_time() -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    found = pointers(scheduled_at=at.isoformat(), expires_at=(at - timedelta(seconds=1)).isoformat())
    assert found == {"/expires_at"}


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "1969-12-31T23:59:59Z"]
)
def test_a_time_at_the_edge_of_what_there_is_is_refused(time: str) -> None:
    assert pointers(scheduled_at=time, expires_at=time) == {"/scheduled_at", "/expires_at"}


def test_a_time_just_past_means_now() -> None:
    mail = made(scheduled_at=(datetime.now(UTC) - timedelta(seconds=5)).isoformat())
    assert mail.scheduled_at == mail.created_at


def test_a_recipient_named_twice_gets_one_copy() -> None:
    mail = made(to=["Ada <ada@example.org>", "ADA@example.org"], cc="ada@example.org", bcc=["grace@example.org"])
    assert mail.recipients == ["ada@example.org", "grace@example.org"]


def test_a_sender_of_a_foreign_domain_is_refused() -> None:
    with pytest.raises(Forbidden) as refused:
        made(**{"from": "ceo@bank.example"})
    assert refused.value.code == "sender-not-allowed"
    assert made(**{"from": "Grace <g@partner.example>"}).sender.addr_spec == "g@partner.example"
    assert made().sender.name == "Callboard"


def test_the_message_id_is_fixed_at_acceptance_and_belongs_to_this_house() -> None:
    mail = made()
    assert mail.message_id == f"<{mail.id}@callboard.example>"


def test_the_time_of_a_mail_is_inside_its_id() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    assert before <= moment(uuid7()) <= datetime.now(UTC)


def test_a_row_has_a_value_for_every_column() -> None:
    mail = made(attachments=[{"filename": "../../x.txt", "content": "aGk="}])
    values = dict(zip((name for name, _ in COLUMNS), row(mail, uuid7(), "live", None), strict=True))
    assert values["attachments"][0]["filename"] == "x.txt"
    assert values["attachments"][0]["digest"] == hashlib.sha256(b"hi").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "ada@example.org",
        "Ada Lovelace <ada@example.org>",
        '"Lovelace, Ada" <ada@example.org>',
        '"x\\" <evil@example.org>, \\"y" <ada@example.org>',
        "Zoë <zoë@example.org>",
    ],
)
def test_an_address_reads_back_as_it_was_written(text: str) -> None:
    address = made(to=text).to[0]
    again = read_back(spell(address))
    assert (again.name, again.addr_spec, again.smtputf8) == (address.name, address.addr_spec, address.smtputf8)
    assert made(to=spell(address)).to[0] == address
