"""A template says what it needs, and makes the mail it always made."""

import os
import re
from pathlib import Path

import pytest

from service.mail.message import build
from service.templates import render as rendering
from service.templates.render import (
    MissingVariables,
    UnknownTemplate,
    VariablesRefused,
    check,
    render,
    required,
    templates,
    text_of,
)
from service.templates.source import UNSUBSCRIBE
from tests.service.mail.sample_emails import mail, read

GOLDEN = Path(__file__).parent / "golden"
KEYS = ["certificate", "course_enrollment", "custom", "email_verification", "password_reset", "welcome"]
INFO = {info.key: info for info in templates()}
LINK = "https://example.org/a?b=1&c=2"


def test_the_six_templates_are_there() -> None:
    assert list(INFO) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_a_template_makes_the_mail_it_always_made(key: str) -> None:
    """Run with UPDATE_GOLDEN=1 to accept a change, and look at the difference before it is committed."""
    rendered = render(key, INFO[key].example)
    made = {f"{key}.html": rendered.html, f"{key}.txt": f"Subject: {rendered.subject}\n\n{rendered.text}"}
    for name, content in made.items():
        if os.environ.get("UPDATE_GOLDEN"):
            (GOLDEN / name).write_text(content, "utf-8")
        assert content == (GOLDEN / name).read_text("utf-8"), f"{name} differs"


@pytest.mark.parametrize("key", KEYS)
def test_a_template_does_with_its_required_variables_alone(key: str) -> None:
    rendered = render(key, {name: INFO[key].example[name] for name in required(key)})
    for content in (rendered.subject, rendered.html, rendered.text):
        assert content is not None
        assert not {"None", "undefined", "{{", "{%", "[[", "jinja"} & set(content.replace(">", " ").split())
        assert "at ." not in content
        assert "  ," not in content
    assert "Northwind" not in rendered.html + str(rendered.text)


@pytest.mark.parametrize("key", KEYS)
def test_a_template_fetches_nothing_and_fits_every_mailbox(key: str) -> None:
    html = render(key, INFO[key].example).html
    for fetching in ("src=", "url(", "@import", "<link", "<script", "@font-face"):
        assert fetching not in html
    assert len(html.encode()) < 102_000  # more than this, and Gmail cuts the mail
    assert 'lang="en"' in html
    assert 'name="color-scheme" content="light dark"' in html
    assert html.count("<h1") == 1
    data_tables = [tag for tag in re.findall("<table[^>]*>", html) if 'role="presentation"' not in tag]
    assert len(data_tables) == ("<th " in html), "a table for layout must say so to those who hear the mail"


@pytest.mark.parametrize("key", KEYS)
def test_a_template_goes_through_the_whole_of_mime(key: str) -> None:
    rendered = render(key, INFO[key].example)
    message = read(build(mail(subject=rendered.subject, html=rendered.html, text=rendered.text)))
    assert message["Subject"] == rendered.subject
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize("key", KEYS)
def test_every_declared_variable_is_used_and_every_used_one_declared(key: str) -> None:
    template = rendering._find(key, None)
    undeclared = template.known - template.declared.keys()
    assert undeclared == {UNSUBSCRIBE}  # which is always there
    bare = {name: INFO[key].example[name] for name in required(key)}
    for name in template.declared:
        without = render(key, {k: v for k, v in INFO[key].example.items() if k != name or k in bare})
        changed = render(
            key,
            INFO[key].example
            | {name: "https://example.net/other" if template.declared[name].type == "url" else "other@example.net"},
        )
        assert changed != without, f"{name} changes nothing"
    assert {name for name, one in template.declared.items() if one.type == "url"} == template.links - {UNSUBSCRIBE}


def test_an_unknown_template_names_those_that_there_are() -> None:
    for key in ("welcom", "", "_layout", "../welcome", "welcome/", "x" * 10_000):
        with pytest.raises(UnknownTemplate) as refused:
            check(key, {})
        assert refused.value.known == KEYS
        assert len(str(refused.value)) < 300


def test_all_missing_variables_are_named_at_once() -> None:
    for ask in (check, render):
        with pytest.raises(MissingVariables) as refused:
            ask("certificate", {"course_name": "Tides", "name": None})
        assert refused.value.names == ["certificate_url", "name"]


def test_every_other_fault_is_named_with_them() -> None:
    with pytest.raises(MissingVariables) as refused:
        check(
            "course_enrollment",
            {
                "course_url": "javascript:alert(1)",
                "course_name": "a\nBcc: e@e.fg",
                "support_email": "nobody",
                "durration": "x",
                "instructor": ["x"],
            },
        )
    assert refused.value.names == ["name"]
    assert {(fault.where, fault.code) for fault in refused.value.faults} == {
        ("variables/name", "missing"),
        ("variables/durration", "unknown"),
        ("variables/course_url", "url"),
        ("variables/course_name", "line_break"),
        ("variables/support_email", "syntax"),
        ("variables/instructor", "type"),
    }


NOT_WEB = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "ftp://example.org",
    "mailto:a@example.org",
]
NOT_ABSOLUTE = ["//example.org", "/path", "https://", "https:///x", "https://["]
NOT_CLEAN = [
    " https://example.org",
    "https://exa mple.org",
    'https://example.org/"onmouseover="x',
    "https://example.org/\n",
]


@pytest.mark.parametrize("url", [*NOT_WEB, *NOT_ABSOLUTE, *NOT_CLEAN, "https://x/" + "y" * 2048, 7])
def test_a_link_is_an_absolute_web_address(url: object) -> None:
    with pytest.raises(VariablesRefused) as refused:
        check("password_reset", {"action_url": url})
    assert [fault.where for fault in refused.value.faults] == ["variables/action_url"]
    assert "action_url" in str(refused.value)


def test_variables_are_escaped_in_html_and_plain_in_text() -> None:
    rendered = render(
        "custom",
        {
            "subject": "A & B <i>",
            "message": "<script>alert(1)</script>\nx",
            "action_url": LINK,
            "product_name": '"><img src=x>',
        },
    )
    assert "<script>" not in rendered.html
    assert "<img" not in rendered.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br />x" in rendered.html
    assert 'href="https://example.org/a?b=1&amp;c=2"' in rendered.html
    assert rendered.subject == "A & B <i>"
    assert "<script>alert(1)</script>\nx" in str(rendered.text)
    assert LINK in str(rendered.text)


def test_a_variable_is_data_never_a_template() -> None:
    assert render("welcome", {"name": "{{ 7 * 7 }}{% raw %}"}).subject == "Welcome, {{ 7 * 7 }}{% raw %}"


def test_an_unused_variable_is_reported_and_lets_the_mail_go() -> None:
    assert check("welcome", {"name": "Ada", "plan": "pro", "user": {"id": 7}}) == ["plan", "user"]


def test_a_misspelt_variable_is_caught_with_a_hint() -> None:
    with pytest.raises(VariablesRefused, match="did you mean `support_email`"):
        check("welcome", {"name": "Ada", "suport_email": "help@example.org"})


def test_an_encoded_word_cannot_ride_into_the_subject_on_a_variable() -> None:
    with pytest.raises(VariablesRefused, match="encoded-word"):
        render("custom", {"subject": "=?utf-8?q?hi=0ABcc:_e@e?=", "message": "x"})


def test_numbers_are_text_and_blank_is_not() -> None:
    assert "Grade: 7.5" in str(render("certificate", INFO["certificate"].example | {"grade": 7.5}).text)
    with pytest.raises(VariablesRefused, match="blank"):
        check("welcome", {"name": "  "})


def test_null_is_the_same_as_absent() -> None:
    given = {"name": "Ada", "action_url": LINK}
    assert render("welcome", given | {"message": None, "action_label": None}) == render("welcome", given)


def test_a_flood_of_variables_is_refused_unread() -> None:
    with pytest.raises(VariablesRefused, match="at most 200"):
        check("welcome", {f"nam{n}": "x" for n in range(201)})


def test_html_alone_gets_a_text_with_its_links() -> None:
    html = render("welcome", INFO["welcome"].example).html
    text = text_of(html)
    assert "Welcome, Ada" in text
    assert "[Start learning](https://academy.northwind.example/start)" in text
    assert "<" not in text
    assert "Here is where to begin" not in text  # the preheader is hidden
    assert text_of("") == "\n"
    assert len(text_of("<div>" * 100_000 + "x")) < 100
    assert text_of("<p>word</p>" * 10_000).endswith("word\n…\n")
