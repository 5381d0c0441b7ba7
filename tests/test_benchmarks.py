"""The benchmarks are measured by hand; that they can be started, and are all in the table, is not left to chance."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {"project", "result", "own_data_sets"}
SCRIPTS = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in PARTS)


def test_the_table_lists_every_script():
    table = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"python benchmarks/(\w+)\.py", table))) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_to_use_it(name: str):
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
