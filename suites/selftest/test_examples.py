"""What CONTRIBUTING shows runs as it stands there."""

import json
import re
import sys
from pathlib import Path

import pytest

from suites.selftest.conftest import ROOT, Stability


def example(name: str) -> str:
    """The code block of CONTRIBUTING.md that is marked as this file."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found, f"CONTRIBUTING.md has no example {name}"
    return found[1]


def test_the_added_operation(
    tmp_path: Path, stability: Stability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation of CONTRIBUTING is swept, its naive path breaks where its docstring says, and
    truth in balls and in float64 agree on torch's.
    """
    (tmp_path / "mine.py").write_text(example("mine.py"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    done = stability("frontier", "softplus", "naive", "fp16", "--catalog", "mine", "--json")
    assert done.code == 0, done.err
    assert 2.0 < json.loads(done.out)["nonfinite_from"] < 11.09  # the largest of 256 normal draws
    for dtype in ("fp32", "fp64"):
        done = stability("frontier", "softplus", "torch", dtype, "--catalog", "mine", "--json")
        found = json.loads(done.out)
        assert found["nonfinite_from"] is None
        assert found["accurate_until"] is not None
