"""Examples of the templates API for the OpenAPI document."""

from typing import Any

CONTENT = {
    "subject": "You are enrolled in Tides",
    "html": "<!doctype html><html>…</html>",
    "text": "Hello Ada,\n\nyou are enrolled in Tides.\n",
}
PREVIEW = {"variables": {"name": "Ada", "course_name": "Tides", "course_url": "https://academy.example/tides"}}
TEMPLATES = {
    "items": [
        {
            "key": "welcome",
            "source": "built-in",
            "published": None,
            "newest": None,
            "subject": "Welcome to Northwind Academy, Ada",
            "required": ["name"],
            "variables": {
                "name": {
                    "description": "How to greet the reader.",
                    "example": "Ada",
                    "type": "text",
                    "required": True,
                    "default": "",
                }
            },
            "example": {"name": "Ada"},
        }
    ]
}
TEMPLATE_IN: dict[str, Any] = {
    "contents": {
        "en": {"subject": "Welcome, {{ name }}", "html": "<p>Hello {{ name }}, good to see you.</p>"},
        "de": {"subject": "Willkommen, {{ name }}", "html": "<p>Hallo {{ name }}, schön, dass du da bist.</p>"},
    },
    "default_locale": "en",
    "variables": {"name": {"description": "How to greet the reader.", "example": "Ada", "required": True}},
    "note": "in German too",
}
TEMPLATE: dict[str, Any] = {
    "key": "welcome",
    "source": "own",
    "version": 2,
    "published": 2,
    "newest": 2,
    "default_locale": "en",
    "contents": {
        locale: {"subject": words["subject"], "mjml": None, "html": words["html"], "text": None}
        for locale, words in TEMPLATE_IN["contents"].items()
    },
    "variables": {
        "name": {
            "description": "How to greet the reader.",
            "example": "Ada",
            "type": "text",
            "required": True,
            "default": "",
        }
    },
    "required": ["name"],
    "example": {"name": "Ada"},
    "versions": [
        {
            "version": 2,
            "locales": ["de", "en"],
            "published": True,
            "note": "in German too",
            "created_at": "2026-01-12T08:30:00.123Z",
        }
    ],
}
