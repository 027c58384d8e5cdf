"""JUnit output, which every CI reads, keeps working with pytest's usual options."""

import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from suites.selftest.conftest import run_pytest


def cases(path: Path) -> dict[str, xml.Element]:
    return {case.attrib["name"]: case for case in xml.parse(path).getroot().iter("testcase")}


# One process, and several of pytest-xdist, whose controller writes the file.
@pytest.mark.parametrize(
    "options", [(), pytest.param(("-n", "2"), marks=pytest.mark.full)], ids=["one", "two"]
)
def test_an_item_is_a_test_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """A passing case an item; a broken claim is its failure, with the command that repeats it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "liar.py").write_text(
        "from suites.selftest.toy import FRAGILE, HONEST, LYING, TOY\n"
        "OPERATIONS = (TOY.with_paths(HONEST, FRAGILE, LYING),)\n"
    )
    path = tmp_path / "found.xml"
    done = run_pytest(
        *("--catalog", "liar", "--dtype", "fp16", "--regime", "signs", *options),
        *("--out", tmp_path / "run", "--junitxml", path, "-o", "junit_family=xunit2"),
    )
    assert done.code == 1, done.out
    found = cases(path)
    failed = {name for name, case in found.items() if case.find("failure") is not None}
    assert len(found) == 6  # three paths, two dtypes
    assert len(failed) == 2
    for name in failed:
        assert "lying" in name
        failure = found[name].find("failure")
        assert failure is not None
        assert "stability run --operation toy --path lying" in (failure.text or "")
