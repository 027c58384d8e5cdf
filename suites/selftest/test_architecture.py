"""The floors: an import only ever points down, and the lower floors stay light."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from suites.selftest.conftest import ROOT

# Each floor and the floors above or beside it, which it must not know.
FORBIDDEN = {"kernels": {"harness", "suites"}, "harness": {"kernels", "suites"}}


def imported_by(source: str) -> Iterator[str]:
    """The top-level packages that a module imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def sources(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_imports_point_down(floor: str) -> None:
    """No module of a floor imports one above it, at its head or inside a function."""
    assert sources(floor)
    for path in sources(floor):
        found = set(imported_by(path.read_text())) & FORBIDDEN[floor]
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_the_scan_sees_every_way_to_import() -> None:
    """A planted import is found in each form; a relative one is no other package."""
    planted = (
        "def f():\n import kernels.launch\n from suites.catalog import x\nfrom . import harness"
    )
    assert set(imported_by(planted)) == {"kernels", "suites"}
    assert FORBIDDEN["harness"] <= set(imported_by(planted))


def test_relative_imports_stay_on_their_floor() -> None:
    """No relative import climbs out of its top-level package."""
    for floor in FORBIDDEN:
        for path in sources(floor):
            depth = len(path.relative_to(ROOT).parts) - 1
            levels = [
                node.level
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom)
            ]
            assert max(levels, default=0) <= depth, path


def modules_after(*statements: str) -> list[set[str]]:
    """The modules loaded in a fresh process after each of the statements."""
    program = "import json, sys\nfound = []\n" + "".join(
        f"{statement}\nfound.append(sorted(sys.modules))\n" for statement in statements
    )
    done = subprocess.run(
        [sys.executable, "-c", program + "print(json.dumps(found))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [set(each) for each in json.loads(done.stdout)]


def test_importing_harness_brings_neither_torch_nor_triton() -> None:
    """So that the plugin can still choose Triton's interpreter, and the command answers at once."""
    light, command, reading, used = modules_after(
        "import harness",
        "import harness.cli",
        "harness.load('results/baselines/cpu-interpreter'); import harness.merge, harness.table",
        "harness.Operation",
    )
    heavy = {"torch", "triton", "numpy", "pandas", "pytest", "kernels", "suites"}
    assert not light & heavy
    assert not command & {"torch", "triton", "numpy", "pandas"}
    assert not reading & {"torch", "triton", "pandas"}  # seconds, for a table of what is recorded
    assert "torch" in used  # fetched when asked for, so the scan is not blind


def test_importing_kernels_brings_torch_and_triton_only() -> None:
    """Beyond what torch and triton load themselves: the standard library and kernels."""
    before, after = modules_after("import torch, triton, triton.language", "import kernels")
    assert {"torch", "triton"} <= before
    assert not after & {"harness", "suites"}
    brought = {name.partition(".")[0] for name in after - before}
    assert "kernels" in brought
    assert brought - {"kernels", "torch", "triton"} <= sys.stdlib_module_names
    heavy = {"pandas", "matplotlib", "sklearn", "ray", "flint", "pytest", "rich", "typer"}
    assert not (after & heavy) - before
