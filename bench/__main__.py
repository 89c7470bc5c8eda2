"""`python -m bench [NAME …]`: one table each; --help names them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from bench import machine
from bench.machine import Cores
from bench.options import Options
from bench.progress import hush, say
from bench.report import Report
from bench.servers import servers

BENCHES = ("worker", "publish", "latency", "memory", "accept", "batch", "smtp", "claims", "growth", "fanout", "streams")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, "all"], default=["all"], help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=None, help="rounds, interleaved (default: 3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one short round: a look, no figure to quote")
    parser.add_argument("--only", default="", help="contestants whose name contains one of these words, by commas")
    parser.add_argument("--json", type=Path, help="store everything measured in this file")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; 1 when a contestant of ours could not be measured."""
    asked = arguments()
    names = BENCHES if "all" in asked.bench else tuple(dict.fromkeys(asked.bench))
    options = Options(asked.rounds or (1 if asked.quick else 3), asked.quick, asked.only)
    options.cores.settle_here()
    facts = machine.described()
    reports: list[Report] = []
    try:
        with servers() as running:
            for name in names:
                for report in importlib.import_module(f"bench.{name}").run(options, running):
                    hush()
                    print(report.text(), end="\n\n", flush=True)
                    reports.append(report)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(footnote(facts, options))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"machine": facts, "reports": [one.as_json() for one in reports]}, indent=2))
    return 1 if any("callboard" in row for report in reports for row in report.failures) else 0


def footnote(facts: dict[str, str | int], options: Options) -> str:
    """Where the figures come from."""
    cores: Cores = options.cores
    pinned = (
        "cores not pinned"
        if cores.measured is None
        else f"measured on core {cores.measured}, the rest on {cores.others}"
    )
    return (
        f"medians of {options.rounds} rounds · {facts['cpu']}, {facts['cores']} cores, {pinned} · "
        f"Python {facts['python']} · load before {facts['load']}\n"
        "Only ratios inside one run mean anything; absolute figures differ by a factor of two between machines."
    )


if __name__ == "__main__":
    sys.exit(main())
