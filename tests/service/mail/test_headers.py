"""A caller sets the headers that are allowed, and no other; a value stays on its line."""

import pytest

from service.mail.headers import MAX_HEADERS, HeadersRefused, check_headers, header_faults, subject_faults


def test_extensions_lists_and_threads_may_be_set() -> None:
    check_headers(
        {
            "X-Campaign": "spring",
            "x-a": "Grüße",
            "List-Unsubscribe": "<https://example.org/u/1>, <mailto:u@example.org?subject=x>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "In-Reply-To": "<a@example.org>",
            "References": "<a@example.org> <b@example.org>",
        }
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Bcc", "reserved"),
        ("bCC", "reserved"),
        ("From", "reserved"),
        ("Subject", "reserved"),
        ("Return-Path", "reserved"),
        ("X-SMTPAPI", "reserved"),
        ("X-MC-BccAddress", "reserved"),
        ("x-mailgun-recipient-variables", "reserved"),
        ("X-Callboard-Id", "reserved"),
        ("DKIM-Signature", "not_allowed"),
        ("Received", "not_allowed"),
        ("Content-Type", "not_allowed"),
        ("MIME-Version", "not_allowed"),
        ("Message-ID", "not_allowed"),
        ("Date", "not_allowed"),
        ("Resent-Bcc", "not_allowed"),
        ("List-Nonsense", "not_allowed"),
        ("X-A: v\r\nBcc", "not_allowed"),
        ("X-A\n", "not_allowed"),
        ("X-Ä", "not_allowed"),
        ("X-", "not_allowed"),
        ("X-" + "a" * 61, "not_allowed"),
        ("", "not_allowed"),
    ],
)
def test_other_names_are_refused(name: str, code: str) -> None:
    assert [fault.code for fault in header_faults({name: "v"})] == [code]


@pytest.mark.parametrize("character", "\r\n\0\x0b\x0c\x1b\x7f\x85\u2028\u2029\ud800\t")
def test_a_control_character_is_refused_wherever_it_stands(character: str) -> None:
    assert [fault.code for fault in header_faults({"X-A": f"a{character}b"})] == ["control_character"]
    assert [fault.code for fault in subject_faults(f"a{character}Bcc: e@e.fg")] == ["control_character"]


@pytest.mark.parametrize("text", ["=?utf-8?q?hi=0ABcc:_e@e?=", "a =?us-ascii?B?aGkKQmNjOiBl?= b", "=?x?y?z?="])
def test_an_encoded_word_is_refused(text: str) -> None:
    assert [fault.code for fault in header_faults({"X-A": text})] == ["encoded_word"]
    assert [fault.code for fault in subject_faults(text)] == ["encoded_word"]


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(HeadersRefused) as refused:
        check_headers(
            {"Bcc": "e@e.fg", "X-Ok": "v", "X-Long": "v" * 998, "References": "no id", "X-Blank": " ", "x-oK": "w"}
        )
    assert [(fault.where, fault.code) for fault in refused.value.faults] == [
        ("Bcc", "reserved"),
        ("X-Long", "too_long"),
        ("References", "message_id"),
        ("X-Blank", "blank"),
        ("x-oK", "duplicate"),
    ]


def test_there_is_a_limit_to_how_many() -> None:
    assert not header_faults({f"X-{n}": "v" for n in range(MAX_HEADERS)})
    assert [fault.code for fault in header_faults({f"X-{n}": "v" for n in range(MAX_HEADERS + 1)})] == ["too_many"]


@pytest.mark.parametrize(
    ("subject", "code"), [("s" * 999, "too_long"), ("", "empty"), (" ", "empty"), ("a\u202eb", "bidi_control")]
)
def test_a_subject_is_one_line_of_reasonable_length(subject: str, code: str) -> None:
    assert [fault.code for fault in subject_faults(subject)] == [code]
    assert not subject_faults("s" * 998)
