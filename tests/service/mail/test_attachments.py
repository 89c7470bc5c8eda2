"""An attachment keeps its bytes, and of its name what is safe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.attachments import MAX_FILENAME, Attachment, attachment_faults, media_type, safe_filename


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("Übersicht 2026.pdf", "Übersicht 2026.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("a\r\nBcc: e@e.fg.txt", "aBcc_ e@e.fg.txt"),
        ("in\0voice.pdf", "invoice.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("..", "attachment"),
        ("", "attachment"),
        (" . ", "attachment"),
        ("dir/", "attachment"),
        (".bashrc", "bashrc"),
        ('a"b<c>.txt', "a_b_c_.txt"),
        ("x" * 10_000 + ".pdf", "x" * 116 + ".pdf"),
        ("x" * 10_000, "x" * 120),
        ("a." + "e" * 10_000, "a." + "e" * 118),
        ("\ud800.txt", "txt"),
        ("\xa0a\u3000b\xa0.", "a b"),
    ],
)
def test_a_name_is_reduced_to_a_safe_base_name(name: str, safe: str) -> None:
    assert safe_filename(name) == safe


@given(st.text())
def test_any_name_becomes_safe_and_stays_so(name: str) -> None:
    safe = safe_filename(name)
    assert 0 < len(safe) <= MAX_FILENAME
    assert safe not in (".", "..")
    assert not set(safe) & set('/\\\r\n\0<>:"|?*\u202e\u2028')
    assert safe_filename(safe) == safe


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html\r\nX: y", "text", "a b/c", "", "/", "multipart/mixed", "message/rfc822", "multipart/mixed; a=b",
        "text/plain;", "text/plain; charset", "text/plain; charset=", "text/plain; charset=a b", 'text/plain; a="b',
        'text/plain; a="b"c', 'text/plain; a="\r\nX: y"', "text/plain; a=\u00fc", "text/plain; a=b; A=c",
        "text/plain; name=x.txt", "text/plain; boundary=x", 'text/plain; a="' + "x" * 500 + '"',
    ],
)  # fmt: skip
def test_a_content_type_is_type_and_subtype(content_type: str) -> None:
    faults = attachment_faults([Attachment("a", b"", "image/png"), Attachment("b", b"", content_type)], None)
    assert [(fault.where, fault.code) for fault in faults] == [("attachments/1", "content_type")]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain; charset=utf-8", 'text/plain; charset="utf-8"', "Text/Calendar;method=REQUEST; charset=UTF-8"],
)
def test_a_content_type_may_have_parameters_which_are_sent_as_they_are(content_type: str) -> None:
    assert not attachment_faults([Attachment("b", b"", content_type)], None)
    kind, _, parameters = content_type.partition(";")
    assert media_type(content_type) == f"{kind.lower()}; {parameters.strip()}"


def test_an_inline_image_is_shown_once_by_the_html() -> None:
    logo = Attachment("logo.png", b"", "image/png", "logo")
    assert not attachment_faults([logo], '<img src="cid:logo">')
    assert [fault.code for fault in attachment_faults([logo, logo], '<img src="cid:logo">')] == ["content_id"]
    assert [fault.code for fault in attachment_faults([logo], "<p>no picture</p>")] == ["content_id"]
    assert [fault.code for fault in attachment_faults([logo], None)] == ["content_id"]
    assert [fault.code for fault in attachment_faults([Attachment("x", b"", "image/png", "a>\r\nB")], "x")] == [
        "content_id"
    ]
