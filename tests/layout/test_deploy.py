"""The files in deploy/ fit the product: their metrics are given out, their commands exist, their mends are written."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from prometheus_client import generate_latest

from callboard_workers import metrics as _worker_metrics
from service.cli.main import callboard
from service.settings import Settings
from tests.layout.repository import ROOT
from tests.service.conftest import client_of

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "callboard.json").read_text())["panels"]
SCRAPED = yaml.safe_load((DEPLOY / "prometheus" / "scrape.yml").read_text())["scrape_configs"]
ENDING = 25  # seconds in which a worker cancels, gives back, settles and closes, once it waits for nothing any more
METRIC = re.compile(r"\b(?:celery|http)_[a-z_]+")
ABOUT = {name for item in Settings.__dataclass_fields__.values() for name in item.metadata["names"]}


@pytest.fixture
async def given(database: str, redis_url: str) -> set[str]:
    """The names of all metrics that the API and a worker give out."""
    assert _worker_metrics.UP  # imported: a worker's /metrics is this process's registry
    settings = Settings.from_env({"DATABASE_URL": database, "REDIS_URL": redis_url, "RATE_LIMIT_KEY": "1000"})
    async with client_of(settings) as client:
        answer: httpx.Response = await client.get("/metrics")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", answer.text + generate_latest().decode(), re.MULTILINE)
    found = {name for name, _ in families}
    return found | {
        f"{name}{end}" for name, kind in families if kind == "histogram" for end in ("_bucket", "_count", "_sum")
    }


async def test_alerts_and_panels_use_only_metrics_that_are_given_out(given: set[str]) -> None:
    expressions = [rule["expr"] for rule in ALERTS]
    expressions += [target["expr"] for panel in PANELS for target in panel["targets"]]
    used = {name for expression in expressions for name in METRIC.findall(expression)}
    assert len(used) > 10
    assert used - given == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_how_to_mend_it(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_job_that_an_alert_asks_about_is_scraped() -> None:
    asked = {name for rule in ALERTS for name in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert asked <= {job["job_name"] for job in SCRAPED}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_that_exists_with_few_rights(path: Path) -> None:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text(encoding="utf-8"))
    run = dict(unit["Service"])
    command = run["ExecStart"].partition("/bin/callboard ")[2].split()[0]
    assert isinstance(callboard.commands[command], click.Command)
    assert run["User"] == "callboard"
    assert run["NoNewPrivileges"] == "yes"
    assert run["ProtectSystem"] == "strict"
    for setting in re.findall(r"^Environment=(\w+)=", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert setting in ABOUT


def test_a_worker_is_given_longer_to_stop_than_it_takes() -> None:
    unit = (DEPLOY / "systemd" / "callboard-worker@.service").read_text(encoding="utf-8")
    compose = yaml.safe_load((DEPLOY.parent / "compose.yaml").read_text(encoding="utf-8"))
    settings = Settings.from_env({})
    longest = max(settings.worker_grace, settings.worker_fenced_timeout)
    [systemd] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    period = compose["services"]["worker"]["stop_grace_period"].removesuffix("s")
    assert int(systemd) == int(period) >= longest + ENDING


def test_the_example_of_the_environment_names_settings_only() -> None:
    text = (DEPLOY / "systemd" / "callboard.env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=", text, re.MULTILINE)) <= ABOUT
