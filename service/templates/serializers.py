"""Templates as the API tells them, those of the tenant and those built in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import RowMapping

from service.templates import render
from service.templates.schemas import TemplateDetail, TemplateOverview, VersionOut
from service.templates.source import Declared
from service.templates.tenant.cache import Version
from service.templates.tenant.content import Needs, Words, nearest

OWN, BUILT_IN = "own", "built-in"


def built_in(key: str) -> render.TemplateInfo | None:
    """The built-in template of this key."""
    return next((info for info in render.templates() if info.key == key), None)


def overview(info: render.TemplateInfo, draft: int | None = None) -> TemplateOverview:
    """A built-in template in the list; `draft` is the tenant's newest version of it, which is not published."""
    return TemplateOverview(
        key=info.key,
        source=BUILT_IN,
        published=None,
        newest=draft,
        subject=info.subject,
        required=_required(info.variables),
        variables=info.variables,
        example=info.example,
    )


def own_overview(row: RowMapping) -> TemplateOverview:
    """A tenant's template in the list: its subject is told as it is written."""
    contents = msgspec.json.decode(row["contents"], type=dict[str, Words])
    needs = msgspec.json.decode(row["needs"], type=dict[str, Needs])
    locale = nearest(contents, None, row["default_locale"]) or next(iter(contents))
    declared = needs[locale].declared
    return TemplateOverview(
        key=row["key"],
        source=OWN,
        published=row["published"],
        newest=row["newest"],
        subject=contents[locale].subject,
        required=sorted(needs[locale].required),
        variables=declared,
        example=_example(declared),
    )


def detail(
    info: render.TemplateInfo, row: RowMapping | None = None, versions: Sequence[VersionOut] = ()
) -> TemplateDetail:
    """A built-in template; `row` and `versions` are the tenant's own of the same key."""
    return TemplateDetail(
        key=info.key,
        source=BUILT_IN,
        version=None,
        published=None if row is None else row["published"],
        newest=None if row is None else row["newest"],
        default_locale="en",
        contents={},
        variables=info.variables,
        required=_required(info.variables),
        example=info.example,
        versions=list(versions),
    )


def own_detail(
    version: Version, contents: dict[str, Words], row: RowMapping, versions: Sequence[VersionOut]
) -> TemplateDetail:
    """One version of a tenant's template."""
    return TemplateDetail(
        key=version.key,
        source=OWN,
        version=version.version,
        published=row["published"],
        newest=row["newest"],
        default_locale=version.default_locale,
        contents=contents,
        variables=version.variables or {},
        required=sorted(set().union(*(needs.required for needs in version.needs.values()))),
        example=_example(version.variables or {}),
        versions=list(versions),
    )


def _required(variables: Mapping[str, Declared]) -> list[str]:
    return [name for name, variable in variables.items() if variable.required]


def _example(variables: Mapping[str, Declared]) -> dict[str, str]:
    return {name: variable.example for name, variable in variables.items()}
