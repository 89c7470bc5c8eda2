"""The benchmarks run: no figure is looked at, only that each contestant of ours was measured and the table holds it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_quick_look_measures_our_publisher_beside_its_floor(tmp_path: Path) -> None:
    stored = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "publish", "--quick", "--only", "floor,callboard", "--json", str(stored)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "Redis frozen: 50 publishers fail" in done.stdout
    [report] = json.loads(stored.read_text())["reports"]
    assert report["failures"] == {}
    for row in ("callboard", "floor: batched fetch"):
        assert report["medians"][row].keys() == {"sequential", "concurrent", "bulk", "cpu", "lag"}
        assert all(value > 0 for value in report["medians"][row].values())
