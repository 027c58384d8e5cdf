"""Writes the reports in docs/diagnose.md anew, from the scripts in docs/examples: run it from the
root of the checkout."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "diagnose.md"

# The line to change in each example, and what it becomes: the repair that its report verified.
REPAIRS = {
    "classifier": [
        ("    p = torch.sigmoid(model(x)).squeeze(1)\n", "    z = model(x).squeeze(1)\n"),
        (
            "    loss = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()\n",
            "    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y)\n",
        ),
    ],
    "directions": [
        (
            "    length = torch.sqrt((z**2).sum(1, keepdim=True))\n",
            "    length = torch.sqrt((z**2).sum(1, keepdim=True) + 1e-12)\n",
        )
    ],
    "half": [("keepdim=True) + 1e-8)", "keepdim=True) + 1e-3)")],
}


def diagnosed(script: Path) -> str:
    """The report on a script."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "diagnose", "--", script.name],
        cwd=script.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def example(name: str) -> str:
    """The report on an example, its repair, and the report on the repaired script."""
    script = ROOT / "docs" / "examples" / f"{name}.py"
    source = script.read_text()
    lines = []
    for before, after in REPAIRS[name]:
        if before not in source:
            raise SystemExit(f"{script} has no line {before!r}")
        source = source.replace(before, after)
        lines += [f"- {before.strip()}", f"+ {after.strip()}"]
    with tempfile.TemporaryDirectory() as place:
        repaired = Path(place) / script.name
        repaired.write_text(source)
        after_all = diagnosed(repaired)
    return (
        f"```\n$ stability diagnose -- {script.name}\n{diagnosed(script)}```\n\n"
        + "```diff\n"
        + "\n".join(lines)
        + f"\n```\n\n```\n$ stability diagnose -- {script.name}\n{after_all}```\n"
    )


def score() -> str:
    """What `python -m suites.selftest.diagnosis_score` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "suites.selftest.diagnosis_score"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return f"```\n$ python -m suites.selftest.diagnosis_score\n{done.stdout}```\n"


def outline(report: str) -> list[str]:
    """What a report says, without its numbers: they differ in the last place between machines."""
    kept = [line for line in report.splitlines() if re.match(r"stability: |  line |.*\[\w+", line)]
    return [re.sub(r"[-+.e\d]*\d", "#", line) for line in kept]


def shown(name: str) -> str:
    """What the page shows of an example."""
    found = re.search(rf"<!-- report: {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    return found[1] if found else ""


def main() -> None:
    """Rewrite the page."""
    page = PAGE.read_text()
    parts = {f"report: {name}": example(name) for name in REPAIRS} | {"score": score()}
    for title, text in parts.items():
        pattern = rf"(<!-- {title} -->\n).*?(<!-- end -->)"
        page = re.sub(
            pattern, lambda found, text=text: found[1] + text + found[2], page, flags=re.DOTALL
        )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
