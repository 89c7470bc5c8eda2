"""Every promise is where `mutants.py` breaks it, and so is the test that must notice."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, ROOT, Mutant, passes
from tests.mutants import Trial, run


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_every_promise_is_where_it_is_broken(mutant: Mutant) -> None:
    whole = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert all(old in whole for old, _ in mutant.texts)
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


SLOW = """
import os, pathlib, time, pytest

@pytest.fixture
def server():
    yield
    pathlib.Path("stopped").touch()

def test_slow(server):
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(300)
"""


def test_a_test_that_takes_too_long_is_cut_off_and_stops_its_servers(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW)
    with pytest.raises(TimeoutError, match=r"test_slow\.py takes longer than"):
        passes(tmp_path, "test_slow.py", tmp_path / "log", 40.0)
    assert (tmp_path / "stopped").exists(), "its fixtures have ended"
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_what_is_cut_off_counts_as_neither_noticed_nor_missed(capsys: pytest.CaptureFixture[str]) -> None:
    def slow() -> bool:
        raise TimeoutError

    found = run([Trial("a", slow), Trial("b", lambda: True), Trial("c", lambda: False)], float("inf"))
    assert found == (["c"], ["a"])
    assert "1 of 3 mutants are noticed; 1 were cut off, 0 were not tried" in capsys.readouterr().out
    assert run([Trial("a", lambda: True)], 0.0) == ([], [])
