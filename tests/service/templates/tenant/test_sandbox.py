"""What tenants write cannot reach, hold up or overfill the service: a try is a fault, and the next mail is made."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.templates.tenant.compile import Job, Result
from service.templates.tenant.content import Words
from service.templates.tenant.sandbox_pool import Child, Killed, Renderers

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = Words(subject="Hello {{ name }}", html="<p>{{ name }}</p>", text="Hello {{ name }}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def renderers() -> AsyncIterator[Renderers]:
    made = Renderers(1)
    yield made
    await made.close()


async def attempt(renderers: Renderers, words: Words, **given: Any) -> Result | Killed:
    """Compile and fill in, as a preview does."""
    try:
        checked = await renderers.ask(Job(key="custom", contents={"en": words}))
        if checked.faults:
            return checked
        return await renderers.ask(Job(key="custom", contents={"en": words}, name=str(hash(words)), given=given))
    except Killed as error:
        return error


async def still_works(renderers: Renderers) -> None:
    made = await attempt(renderers, GOOD, name="Ada")
    assert isinstance(made, Result)
    assert made.rendered is not None
    assert made.rendered.subject == "Hello Ada"


FORBIDDEN = {
    "49 class": "{{ ''.__class__.__mro__ }}",
    "49 globals": "{{ cycler.__init__.__globals__ }}",
    "49 attr filter": "{{ ''|attr('__class__') }}",
    "49 format": "{{ '{0.__class__}'.format(x) }}",
    "49 format filter": "{{ '%0500000000d'|format(1) }}",
    "49 item": "{{ x['__class__'] }}",
    "49 map": "{{ [1]|map(attribute='__class__')|list }}",
    "50 text times number": "{{ 'x' * 500000000 }}",
    "50 number times text": "{{ 500000000 * 'x' }}",
    "50 percent": "{{ '%0500000000d' % 1 }}",
    "50 power": "{{ 9 ** 9 ** 9 }}",
    "50 list times number": "{{ [0] * 500000000 }}",
    "50 ljust": "{{ 'x'.ljust(500000000) }}",
    "50 center": "{{ 'x'|center(500000000) }}",
    "51 long range": "{% for a in range(100000000) %}{% endfor %}",
    "51 lipsum": "{{ lipsum(n=100000) }}",
    "52 namespace": "{% set ns = namespace(x='x') %}{% for i in range(34) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "53 macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "53 recursive loop": "{% for a in x recursive %}{{ loop(x) }}{% endfor %}",
    "53 parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "53 nested ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "54 include": "{% include '/etc/passwd' %}",
    "54 import": "{% import '/etc/passwd' as p %}",
    "54 from import": "{% from '/etc/passwd' import p %}",
    "54 extends": "{% extends '/etc/passwd' %}",
    "54 self": "{{ self.__init__ }}",
    "54 do": "{% do x %}",
    "55 safe": "{{ x|safe }}",
    "55 autoescape": "{% autoescape false %}{{ x }}{% endautoescape %}",
}
OVERFILLING = {
    "52 output": "{% for a in range(1000) %}{% for b in range(1000) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    "52 sum of texts": "{% set a = 'x' * 1 %}",
    "52 doubling": "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a|length }}",
    "52 joined": "{{ range(1000)|join('" + "x" * 400_000 + "')|length }}",
    "52 replaced": "{{ ('" + "a" * 60_000 + "')|replace('a', '" + "b" * 60_000 + "')|length }}",
}
LOOPING = {
    "51 nested ranges": "{% for a in range(1000) %}" * 4 + "{% endfor %}" * 4,
    "51 reckoning": "{% for a in range(1000) %}" * 3 + "{% set z = 7 // 3 + 1 %}" + "{% endfor %}" * 3,
}


@pytest.mark.parametrize("name", FORBIDDEN)
async def test_what_is_forbidden_is_a_fault_that_names_its_place(renderers: Renderers, name: str) -> None:
    made = await attempt(renderers, Words(subject="s", html=FORBIDDEN[name]), x={"a": 1})
    assert isinstance(made, Result), name
    assert made.rendered is None or "class" not in made.rendered.html, name
    assert made.faults, name
    assert made.faults[0][0] in {"en/html", "html"}
    await still_works(renderers)


@pytest.mark.parametrize("name", OVERFILLING)
async def test_what_overfills_is_a_fault_or_ends_its_process_alone(renderers: Renderers, name: str) -> None:
    made = await attempt(renderers, Words(subject="s", html=OVERFILLING[name]))
    assert isinstance(made, Killed) or made.faults, name
    await still_works(renderers)


@pytest.mark.parametrize("name", LOOPING)
async def test_what_does_not_end_is_killed_and_another_takes_its_place(renderers: Renderers, name: str) -> None:
    made = await attempt(renderers, Words(subject="s", html=LOOPING[name]))
    assert isinstance(made, Killed), made
    assert "too long" in str(made)
    await still_works(renderers)


@pytest.mark.parametrize(
    "mjml",
    [
        '<mj-include path="/etc/passwd" />',
        '<mj-include path="https://example.org/a.mjml" />',
        "<mj-text>" * 5_000,
        "<mj-section><mj-column>" * 3_000,
        "<mj-style>@import url(https://example.org/a.css);</mj-style>",
    ],
)
async def test_markup_reaches_neither_files_nor_the_network_nor_the_service(renderers: Renderers, mjml: str) -> None:
    document = f"<mjml><mj-body><mj-section><mj-column>{mjml}</mj-column></mj-section></mj-body></mjml>"
    made = await attempt(renderers, Words(subject="s", mjml=document))
    assert isinstance(made, Killed) or made.faults or "root:" not in str(made.rendered)
    await still_works(renderers)


async def test_a_variable_is_data_in_html(renderers: Renderers) -> None:
    made = await attempt(renderers, GOOD, name="<script>alert(1)</script>{{ 7 * 7 }}")
    assert isinstance(made, Result)
    assert made.rendered is not None
    assert "<script>" not in made.rendered.html
    assert "{{ 7 * 7 }}" in made.rendered.html


async def test_the_process_knows_no_secret_and_no_descriptor_of_ours() -> None:
    os.environ["SECRET_KEY"] = "a secret of tests only"
    child = await Child.start()
    try:
        environ = await asyncio.to_thread(Path(f"/proc/{child.process.pid}/environ").read_bytes)
        files = os.listdir(f"/proc/{child.process.pid}/fd")
    finally:
        del os.environ["SECRET_KEY"]
        await child.kill()
    assert b"SECRET" not in environ
    assert b"DATABASE" not in environ
    assert len(files) <= 4, files


async def test_jobs_beyond_the_processes_wait_for_their_turn(renderers: Renderers) -> None:
    made = await asyncio.gather(*(attempt(renderers, GOOD, name=f"user{n}") for n in range(40)))
    assert [each.rendered.subject for each in made if isinstance(each, Result) and each.rendered] == [
        f"Hello user{n}" for n in range(40)
    ]
