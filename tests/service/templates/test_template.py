"""A template is text: MJML and Jinja, compiled once, whoever wrote it."""

import re
from pathlib import Path

import pytest

from service.templates.source import Files, Folders
from service.templates.template import compile_template
from service.templates.variables import variable_faults

PAGE = "<mjml><mj-body>{}</mj-body></mjml>"


def files(body: str, subject: str = "s", text: str | None = "t") -> Files:
    return Files(subject, PAGE.format(body), text, None)


def column(content: str) -> str:
    return f"<mj-section><mj-column>{content}</mj-column></mj-section>"


def test_statements_stand_between_any_two_elements() -> None:
    text = "{% for x in a %}<mj-text>{{ x }}{% if not loop.last %},{% endif %}</mj-text>{% endfor %}"
    table = "<mj-table>{% for x in a %}<tr><td>{{ x }}</td></tr>{% endfor %}</mj-table>"
    template = compile_template("t", files("{% if a %}" + column(text) + "{% endif %}" + column(table)))
    html = template.render({"a": ["1", "<2>"]}).html
    assert html.count("<td>1</td>") == html.count("<td>&lt;2&gt;</td>") == 1
    assert "1,</div>" in html
    assert "<tr><td>" not in template.render({"a": []}).html


def test_undeclared_variables_are_required_unless_they_have_a_default() -> None:
    template = compile_template(
        "t",
        files(
            column('<mj-text>{{ a }} {{ b | default("x") }} {% if c is defined %}{{ c }}{% endif %}</mj-text>'),
            "{{ d }}",
            "{{ e.f }}",
        ),
    )
    assert template.required == {"a", "d", "e"}
    assert [fault.where for fault in variable_faults(template, {"a": 1})] == ["variables/d", "variables/e"]
    assert "1 x" in template.render({"a": 1, "d": 2, "e": {"f": 3}}).html


@pytest.mark.parametrize(
    "use",
    [
        '<mj-button href="{{ u }}">x</mj-button>',
        '<mj-text><a href="{{ u|trim }}">x</a></mj-text>',
        '<mj-image src="{{ u }}" />',
    ],
)
def test_a_variable_at_the_start_of_an_address_must_be_one(use: str) -> None:
    template = compile_template("t", files(column(use)))
    assert template.links == {"u"}
    assert [fault.code for fault in variable_faults(template, {"u": "javascript:x"})] == ["url"]
    assert not variable_faults(template, {"u": "https://example.org"})


def test_styles_marked_inline_stand_in_the_elements() -> None:
    style = '<mj-head><mj-style inline="inline">.k { color: #123456; }</mj-style></mj-head>'
    bold = column('<mj-text><b class="k">x</b></mj-text>')
    page = f"<mjml>{style}<mj-body>{bold}</mj-body></mjml>"
    html = compile_template("t", Files("s", page, None, None)).render({}).html
    assert re.search(r'<b class="k" style="color: ?#123456;?">', html)


def test_text_that_mjml_drops_is_an_error_not_a_hole() -> None:
    head = '<mj-head><mj-attributes><mj-class name="a" color="{{ lost }}" /></mj-attributes></mj-head>'
    with pytest.raises(ValueError, match=re.escape("{{ lost }}")):
        compile_template("t", Files("s", f"<mjml>{head}<mj-body></mj-body></mjml>", None, None))
    with pytest.raises(ValueError, match="not MJML"):
        compile_template("t", files("<mj-section>"))


def test_raw_jinja_and_comments_survive() -> None:
    html = (
        compile_template("t", files(column("<mj-text>{# gone #}{% raw %}{{ kept }}{% endraw %}{{ '}}' }}</mj-text>")))
        .render({})
        .html
    )
    assert "{{ kept }}}}" in html
    assert "gone" not in html


def test_a_folder_is_a_template_and_nothing_else_is(tmp_path: Path) -> None:
    written = {
        "_layout/body.mjml": PAGE.format(column("[[ content ]]")),
        "_layout/variables.json": "{}",
        "hello/subject.txt": "Hi {{ name }}\n",
        "hello/preheader.txt": "",
        "hello/reason.txt": "",
        "hello/body.mjml": "<mj-text>{{ name }}</mj-text>",
        "hello/variables.json": '{"name": {"description": "d", "example": "e", "required": true}}',
        "empty/subject.txt": "",
    }
    for path, content in written.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    source = Folders(tmp_path)
    assert source.keys() == ["hello"]
    assert source.find("hello", "de-CH") == "hello"
    assert {source.find(key, None) for key in ("empty", "_layout", "hello/..", "..", "")} == {None}
    template = compile_template("hello", source.read("hello"))
    assert template.required == {"name"}
    assert template.text is None
    assert template.render({"name": "Ada"}).subject == "Hi Ada"
