"""compose.yaml and the Dockerfile say what they must, without an engine to ask."""

import re
from dataclasses import fields
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.layout.repository import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("build")}
NEEDED = {
    "postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"},
    "valkey": {"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"},
}
"""Capabilities with which an image's entry point prepares its data folder before it gives up root."""
SETTINGS = {name for item in fields(Settings) for name in item.metadata["names"]}


def test_the_stack_is_whole() -> None:
    ours = {"api", "worker", "beat", "migrate"}
    assert set(SERVICES) == ours | {"flower", "database", "postgres", "valkey", "mailpit", "load"}


def test_the_load_starts_only_when_asked_for() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["load"]
    assert (ROOT / "tests" / "load" / "locustfile.py").exists()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    given = {variable for variable in OURS[name]["environment"] if not variable.startswith("FLOWER_")}
    assert given <= SETTINGS


@pytest.mark.parametrize("name", OURS)
def test_our_processes_have_no_more_rights_than_they_need(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_more_rights_or_resources_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) <= NEEDED.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"] <= 512
    assert service.get("read_only") is True or name == "load"


@pytest.mark.parametrize("name", ["api", "worker", "beat"])
def test_our_processes_start_after_the_migration(name: str) -> None:
    waits = SERVICES[name]["depends_on"]
    assert waits["migrate"]["condition"] == "service_completed_successfully"
    assert waits["postgres"]["condition"] == waits["valkey"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["postgres", "valkey", "mailpit", "api", "worker", "flower"])
def test_what_others_wait_for_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(OURS)))
def test_images_are_pinned_to_a_version(name: str) -> None:
    assert re.search(r":v?\d", SERVICES[name]["image"])


def test_data_outlives_the_containers() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert {"postgres", "valkey"} <= set(COMPOSE["volumes"])


def test_every_password_says_that_its_default_is_for_development() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    defaults = re.findall(r"\$\{((?:[A-Z]+_)*(?:PASSWORD|KEY)):-([^}]*)\}", text)
    assert defaults
    assert {name for name, value in defaults if value and not value.startswith("development-only")} == set()


def test_the_image_runs_as_nobody_special() -> None:
    last_stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert re.search(r"^USER callboard$", last_stage, re.MULTILINE)


def test_the_builder_gets_all_that_the_package_is_made_of() -> None:
    """Each path the Dockerfile copies is let through by .dockerignore and exists."""
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    copied = {path for line in copies for path in line.split()}
    assert copied
    assert copied <= allowed
    assert [path for path in copied if not (ROOT / path).exists()] == []
