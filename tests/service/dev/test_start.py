"""`python3 start`, as far as it goes without a download."""

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

START = Path(__file__).parents[3] / "start"


@pytest.fixture
def start() -> ModuleType:
    loader = SourceFileLoader("start_script", str(START))
    spec = importlib.util.spec_from_loader("start_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_alone_it_says_what_it_can_do_from_anywhere(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(START), *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Usage: python3 start COMMAND" in done.stdout


def test_an_old_python_is_told_which_to_use(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert start.main(["up"]) == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().err


def test_without_uv_and_pip_it_says_what_to_install(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(start, "PRIVATE", str(tmp_path / ".uv"))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "pip", raising=False)
    assert start.main(["up"]) == 1
    said = capsys.readouterr().err
    assert "neither uv nor pip" in said
    assert "apt-get install python3-pip" in said


def test_a_uv_that_does_not_run_is_not_used(start: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "uv"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(start, "PRIVATE", str(tmp_path / ".uv"))
    assert start.find_uv() is None


def test_its_commands_are_named_as_a_person_typed_them(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(START.parent)
    assert start.environment()["CALLBOARD_PROGRAM"] == "python3 start"
    monkeypatch.chdir(START.parent / "tests")
    assert start.environment()["CALLBOARD_PROGRAM"] == "python3 ../start"


def test_its_syntax_is_understood_by_a_python_that_is_too_old() -> None:
    compile(START.read_text(), str(START), "exec", dont_inherit=True, flags=0)
    text = START.read_text()
    assert 'f"' not in text
    assert ":=" not in text
