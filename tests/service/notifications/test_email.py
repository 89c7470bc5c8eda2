"""What a notification says by mail where its caller gave it no mail of its own: a title that people wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.headers import subject_faults
from service.notifications.email import one_line
from tests.service.notifications.conftest import Desk


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("A new prompt", "A new prompt"),
        ("two\r\nBcc: lines", "two Bcc: lines"),
        ("=?utf-8?q?hi=0ABcc:_e@e?=", "= ?utf-8?q?hi=0ABcc:_e@e?="),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("a\x07b\u2028c", "a b c"),
        ("é" * 300, "é" * 200),
        (7, ""),
    ],
    ids=ascii,
)
def test_a_title_becomes_one_line_that_may_be_a_subject(title: object, subject: str) -> None:
    assert one_line(title) == subject


@given(st.one_of(st.text(), st.text("=?q _\u202e\u2066\ra\ud800", max_size=30)))
def test_no_title_makes_a_subject_that_is_refused(title: str) -> None:
    assert subject_faults(one_line(title) or "Comment created") == []


async def test_what_looks_like_an_encoded_word_reaches_the_inbox_and_the_mail(desk: Desk) -> None:
    await desk.api.put("/v1/users/ada", json={"email": "ada@example.com"})
    told = {"title": "=?utf-8?q?hi?=\u202e", "body": "Hello"}
    await desk.deliver(recipients={"users": ["ada"]}, channels=["inbox", "email"], data=told)
    [mail] = (await desk.api.get("/v1/emails")).json()["items"]
    content = await desk.api.get(f"/v1/emails/{mail['id']}/content")
    assert (content.status_code, content.json()["subject"]) == (200, "= ?utf-8?q?hi?=")
