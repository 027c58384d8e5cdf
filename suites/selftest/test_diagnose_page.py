"""The reports in docs/diagnose.md are those that the command prints now."""

import importlib.util
from types import ModuleType

import pytest

from suites.selftest.conftest import ROOT


def examples() -> ModuleType:
    """docs/diagnose_examples.py, which is no package."""
    spec = importlib.util.spec_from_file_location("examples", ROOT / "docs/diagnose_examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_stands_on_the_page_with_its_verdicts() -> None:
    """A defect with its line and a verified repair, the change, and a clean second report."""
    page = examples()
    assert len(page.REPAIRS) >= 3
    for name in page.REPAIRS:
        text = page.shown(name)
        assert f"stability: {name}.py:" in text
        assert "[verified]" in text
        assert "stability: clean:" in text
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.full
@pytest.mark.parametrize("name", ["classifier", "directions", "half"])
def test_the_page_is_current(name: str) -> None:
    """`python docs/diagnose_examples.py` would write the same lines, numbers aside."""
    page = examples()
    assert page.outline(page.example(name)) == page.outline(page.shown(name))
