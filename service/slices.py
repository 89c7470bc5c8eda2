"""Finds what every slice brings: routers in `api.py`, actors in `actors.py`, its part of a request's story.

There is no registry to edit: a folder with such a file is a slice.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import service
from service.core.timeline import Story


def names() -> list[str]:
    """Name every slice: the packages beside this module, in order."""
    return sorted(found.name for found in pkgutil.iter_modules(service.__path__) if found.ispkg)


def modules(name: str) -> Iterator[ModuleType]:
    """Import the module `name` of every slice that has one. A module that fails to import is an error, not a gap."""
    for slice_name in names():
        # looked for as a file: to ask for its spec would import the slice, and a worker every slice's web part
        if any((Path(folder) / slice_name / f"{name}.py").is_file() for folder in service.__path__):
            yield importlib.import_module(f"service.{slice_name}.{name}")


def api_routers() -> list[Any]:
    """Gather the `routers` of every slice's `api.py`."""
    return [router for module in modules("api") for router in getattr(module, "routers", [])]


def scopes() -> set[str]:
    """Gather the scopes that routes ask for, such as `emails:send`."""
    routes = [route for router in api_routers() for route in router.routes]
    handlers = [handler for route in routes for handler in getattr(route, "route_handlers", [])]
    guards = [guard for handler in handlers for guard in handler.resolve_guards()]
    return {name for guard in guards for name in getattr(guard, "scopes", ())}


def import_actors() -> list[ModuleType]:
    """Import every slice's `actors.py`, which declares its actors in the registry."""
    return list(modules("actors"))


def warm() -> None:
    """Do what slices want done once before the first request (`warm()` in `api.py`), such as compile templates."""
    for module in modules("api"):
        if hasattr(module, "warm"):
            module.warm()


def stories() -> list[Story]:
    """Gather the `story` function of every slice that tells one, from its `api.py` or else its `actors.py`."""
    found: dict[str, Story] = {}
    for name in ("actors", "api"):
        for module in modules(name):
            if hasattr(module, "story"):
                found[module.__package__ or module.__name__] = module.story
    return list(found.values())
