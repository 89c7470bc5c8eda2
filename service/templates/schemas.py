"""The shapes of the templates API."""

from datetime import datetime
from typing import Any

import msgspec

from service.templates.source import Declared
from service.templates.tenant.content import Words


class TemplateRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template and what to fill it with; `version` and `locale` default to the published and the default one."""

    key: str
    version: int | None = None
    locale: str | None = None
    variables: dict[str, Any] = {}


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A rendered mail."""

    subject: str
    html: str | None
    text: str | None


class TemplateIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/templates/{key}`: the words in each language (BCP 47), and what the variables are.

    `default_locale` is the one taken where a mail asks for a language that is not here; without it among the
    `contents` such a mail is made of the built-in template. `note`: for whoever reads the list of versions.
    """

    contents: dict[str, Words]
    default_locale: str = "en"
    variables: dict[str, Declared] | None = None
    note: str | None = None


class VersionOut(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the list of a template's."""

    version: int
    locales: list[str]
    published: bool
    note: str | None
    created_at: datetime


class TemplateDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A template as it stands. `version`: which one is shown here, null for a built-in one, whose words are not shown.

    `source` is `own` or `built-in`. `published`: the version that mails are made of, null while it is the built-in one.
    """

    key: str
    source: str
    version: int | None
    published: int | None
    newest: int | None
    default_locale: str
    contents: dict[str, Words]
    variables: dict[str, Declared]
    required: list[str]
    example: dict[str, str]
    versions: list[VersionOut]


class PublishRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`version`: the newest, unless another is named; an older one takes a change back."""

    version: int | None = None


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to fill a template in with; `version`: the published one, unless another is named."""

    variables: dict[str, Any] = {}
    locale: str | None = None
    version: int | None = None


class TemplateOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A template in the list: what it is filled with, and an example that fills it."""

    key: str
    source: str
    published: int | None
    newest: int | None
    subject: str
    required: list[str]
    variables: dict[str, Declared]
    example: dict[str, str]


class TemplateList(msgspec.Struct, frozen=True, kw_only=True):
    """All templates, those of the tenant before the built-in ones that they do not replace."""

    items: list[TemplateOverview]
