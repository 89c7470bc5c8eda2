"""Runs the integration tests of Celery 5.7.0 against our pool and consumer: `python -m tests.celery_suite`.

The tests come from Celery's source distribution, downloaded from the package index by version and hash. They run in
several processes, each with a Valkey of its own, and every outcome is compared with EXCLUDED. Arguments are handed to
pytest as they are, for example `-k test_chord`. Takes about half an hour on two cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

from service.dev.stack import throwaway_stack

VERSION = "5.7.0"
SHA256 = "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0"
ROOT = Path(__file__).parents[2]
PROCESSES = int(os.environ.get("CELERY_SUITE_PROCESSES", "2"))
PLUGINS = ("pip", "setuptools", "django", "pydantic", "pytest-rerunfailures==16.7", "pytest-subtests==0.15.0")
WORKER = """

# The lines below are not Celery's: the worker under test.
import celery.contrib.testing.app
from callboard_workers.celery.app import POOL, App

celery.contrib.testing.app.Celery = App


@pytest.fixture(scope='session')
def celery_worker_pool():
    return POOL
"""
"""Added to the tests' conftest: the app and the pool are ours."""
SETTINGS = {"worker_consumer": "callboard_workers.celery.choice:make_consumer"}
"""Settings of the tests' app beside Celery's defaults."""

PROTOCOL_1 = "a message of protocol 1 is a dead letter (docs/migrating-from-celery.md)"
EXCLUDED = {
    r".*::test_group_results_reach_the_next_group\[.*-1\]": PROTOCOL_1,
    r".*::test_pending_chord_keeps_header_errback\[.*-1\]": PROTOCOL_1,
}
"""What is not expected to pass, by the test's name as pytest prints it, and why."""


def main(arguments: list[str]) -> int:
    """Runs all; 0 when every test outside EXCLUDED passed or was skipped by itself."""
    with tempfile.TemporaryDirectory(prefix="celery-suite-") as folder:
        source = unpack(download(Path(folder)))
        names = collect(source, arguments)
        chosen = [name for name in names if excluded(name) is None]
        shares = divide(chosen)
        with ThreadPoolExecutor(PROCESSES) as runners:
            reports = list(runners.map(run, [source] * len(shares), shares, range(len(shares))))
    outcomes = {name: outcome for report in reports for name, outcome in report.items()}
    return judge(names, outcomes)


def divide(names: list[str]) -> list[list[str]]:
    """The tests of one process each, the longest first: a file each, because some look at what a process has left."""
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(name.partition("::")[0], []).append(name)
    longest = files.pop("t/integration/test_canvas.py", [])
    return [longest[n::PROCESSES] for n in range(PROCESSES)] + list(files.values())


def uv(*command: str) -> list[str]:
    """A command in this project's environment and what the tests need beside it."""
    extra = [option for plugin in PLUGINS for option in ("--with", plugin)]
    return [os.environ.get("UV", "uv"), "run", "--frozen", "--project", str(ROOT), *extra, *command]


def download(folder: Path) -> Path:
    """The source distribution, of exactly this hash."""
    wanted = ["--no-deps", "--no-binary", "celery", "--no-build-isolation", "--dest", str(folder)]
    command = uv("python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *wanted)
    subprocess.run([*command, f"celery=={VERSION}"], check=True, cwd=folder)
    archive = folder / f"celery-{VERSION}.tar.gz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{archive.name} has the hash {found}, not {SHA256}")
    return archive


def unpack(archive: Path) -> Path:
    """The tests in a folder of their own: their `celery` is the installed one."""
    source = archive.parent / "suite"
    with tarfile.open(archive) as tar:
        tests = [member for member in tar.getmembers() if member.name.startswith(f"celery-{VERSION}/t/")]
        tar.extractall(source, tests, filter="data")
    source /= f"celery-{VERSION}"
    (source / "pytest.ini").write_text("[pytest]\npython_classes = test_*\nmarkers =\n  amqp\n  flaky\n  timeout\n")
    (source / "integration-tests-config.json").write_text(json.dumps(SETTINGS))
    with (source / "t/integration/conftest.py").open("a") as conftest:
        conftest.write(WORKER)
    return source


def pytest(source: Path, *arguments: str) -> list[str]:
    """The command that runs pytest over the tests with their own plug-ins."""
    plugins = ("-p", "celery.contrib.pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:asyncio")
    return uv("python", "-m", "pytest", "--rootdir", str(source), *plugins, "--timeout", "300", *arguments)


def environment(source: Path, port: int = 0) -> dict[str, str]:
    """For a process that runs the tests with a Valkey of its own."""
    url = f"redis://127.0.0.1:{port}/0"
    paths = f"{source}{os.pathsep}{ROOT}"
    servers = {"TEST_BROKER": url, "TEST_BACKEND": url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)}
    return {**os.environ, **servers, "WORKER_LOGLEVEL": "INFO", "PYTHONPATH": paths}


def collect(source: Path, arguments: list[str]) -> list[str]:
    """The names of all tests chosen by the arguments."""
    command = pytest(source, "--collect-only", "--quiet", "t/integration", *arguments)
    done = subprocess.run(command, cwd=source, env=environment(source), capture_output=True, text=True, check=False)
    names = [line for line in done.stdout.splitlines() if "::" in line]
    if not names:
        raise SystemExit(done.stdout + done.stderr)
    return names


def run(source: Path, names: list[str], number: int) -> dict[str, str]:
    """Runs these tests, one after the other; the outcome of each."""
    if not names:
        return {}
    report, chosen = source / f"report{number}.xml", source / f"names{number}"
    chosen.write_text("\n".join(names))
    with throwaway_stack() as stack:
        port = int(stack.redis_url.rpartition(":")[2].partition("/")[0])
        command = pytest(source, f"--junitxml={report}", "-o", "junit_family=xunit1", "-q", f"@{chosen}")
        with (source / f"log{number}").open("w") as log:
            subprocess.run(command, cwd=source, env=environment(source, port), stdout=log, stderr=log, check=False)
    if not report.exists():
        raise SystemExit((source / f"log{number}").read_text()[-5000:])
    return outcomes_of(report)


def outcomes_of(report: Path) -> dict[str, str]:
    """What pytest reports of each test: passed, skipped, or what went wrong."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        path = case.get("file", "")
        cls = case.get("classname", "").removeprefix(path.removesuffix(".py").replace("/", ".")).lstrip(".")
        name = "::".join(filter(None, (path, cls, case.get("name", ""))))
        faults = [child for child in case if child.tag in ("failure", "error")]
        skipped = any(child.tag == "skipped" for child in case)
        outcome = (faults[0].get("message") or "failed")[:300] if faults else "skipped" if skipped else "passed"
        if found.get(name, "passed") == "passed":  # a failed subtest has a line of its own
            found[name] = outcome
    return found


def excluded(name: str) -> str | None:
    """Why a test is not run; None for those that are."""
    return next((reason for pattern, reason in EXCLUDED.items() if re.fullmatch(pattern, name)), None)


def judge(names: list[str], outcomes: dict[str, str]) -> int:
    """Prints the counts and every test that did not do as expected."""
    out = [name for name in names if excluded(name) is not None]
    results = {name: outcomes.get(name, "not run") for name in names if name not in out}
    counts = Counter(outcome if outcome in ("passed", "skipped") else "failed" for outcome in results.values())
    for name, outcome in results.items():
        if outcome not in ("passed", "skipped"):
            print(f"{name}\n    {outcome.splitlines()[0]}")
    for reason, count in Counter(excluded(name) for name in out).items():
        print(f"not run: {count}: {reason}")
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), f"of {len(names)}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
