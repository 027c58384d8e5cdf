"""Rewrite what the README shows of the committed baseline: tables, facts, the picture.

    python docs/regenerate.py          # after a new results/baselines/cpu-interpreter
    python docs/regenerate.py --check  # exit 1 if anything would change

Everything between `<!-- NAME` and `<!-- end NAME -->` comes from the recorded run, so that no
number in the README is older than the run that is committed beside it.
"""

import io
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402 - after the checkout is on the path
from rich.text import Text  # noqa: E402

from harness.case import decimal  # noqa: E402
from harness.record import Record, judgement_of  # noqa: E402
from harness.render_text import block_lines  # noqa: E402
from harness.search import Frontier, Side, measured_frontier  # noqa: E402
from harness.store import Run, load  # noqa: E402
from harness.table import Row, table_rows  # noqa: E402
from harness.verdict import Verdict  # noqa: E402

BASELINE = ROOT / "results" / "baselines" / "cpu-interpreter"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "table.svg"

# rich's own template loads a web font; this one uses what the reader's machine has.
_SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#16181d" />
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main() -> None:
    """Regenerate, or with --check only say what is out of date."""
    run = load(BASELINE)
    plain = [record for record in run.records if not _has_extras(record)]
    rows = table_rows(plain, by_regime=False, catalog=run.environment.get("catalog"))
    text = README.read_text(encoding="utf-8")
    text = _replace(text, "table", f"\n{_described(run)}\n\n```\n{_tables(rows)}```\n")
    text = _replace(text, "facts", "\n" + "\n".join(f"- {fact}" for fact in facts(run)) + "\n")
    picture = _picture(rows)
    stale = [
        path.name
        for path, new in ((README, text), (PICTURE, picture))
        if not path.exists() or path.read_text(encoding="utf-8") != new
    ]
    if "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(stale)}; run docs/regenerate.py" if stale else 0)
    README.write_text(text, encoding="utf-8")
    PICTURE.write_text(picture, encoding="utf-8")


def _has_extras(record: Record) -> bool:
    """Whether a case has weights, probabilities or an option: those have tables of their own."""
    named = str(record["regime"]).startswith(("weighted", "probabilities"))
    return named or bool(record.get("options"))


def _replace(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name}\b[^>]*-->\n).*?(<!-- end {name} -->)"
    new, count = re.subn(pattern, lambda m: m[1] + content + m[2], text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"README.md needs one place <!-- {name} --> ... <!-- end {name} -->")
    return new


def _described(run: Run) -> str:
    environment = run.environment
    versions = environment["versions"]
    return (
        f"Measured by `make sweep` in Triton's interpreter on {environment['device']['model']},"
        f" Python {environment['python']}, torch {versions['torch']}, triton {versions['triton']},"
        f"\nliger-kernel {versions['liger-kernel']}, seed {environment['seed']},"
        f" {len(run.records)} cases, {environment['started'][:10]}; not a GPU. Here two of the"
        " eight operations,\nwithout weights, probabilities and options; `stability table` prints"
        " all."
    )


def _shown(rows: list[Row]) -> list[list[Row]]:
    """Forward cross-entropy and normalisation: the two that the question is about, along what was
    there to be measured.
    """
    wanted = ("cross_entropy", "normalize")
    measured = [row for row in rows if set(row.counts) != {Verdict.UNSUPPORTED}]
    return [
        [row for row in measured if row.operation == name and row.pass_ == "forward"]
        for name in wanted
    ]


def _tables(rows: list[Row]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, color_system=None)
    for block in _shown(rows):
        for line in block_lines(block):
            console.print(line, soft_wrap=True, highlight=False)
        console.print()
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()) + "\n"


def _picture(rows: list[Row]) -> str:
    console = Console(record=True, width=82, file=io.StringIO(), color_system="truecolor")
    paths = ("naive", "softmax_log", "clamped", "epsilon", "torch", "triton")
    for block in _shown(rows):
        for line in block_lines([row for row in block if row.path in paths]):
            console.print(line, soft_wrap=True, highlight=False)
        console.print(Text())
    return console.export_svg(title="", code_format=_SVG, unique_id="table")


def facts(run: Run) -> list[str]:
    """The sentences of the README, with their numbers from the run."""

    def frontier(
        operation: str, path: str, dtype: str, regime: str, side: Side = "high"
    ) -> Frontier:
        chosen = {
            record["magnitude"]: judgement_of(record)
            for record in run.records
            if (record.operation, record.path, record.dtype) == (operation, path, dtype)
            and (record["regime"], record["pass"]) == (regime, "forward")
        }
        return measured_frontier(list(chosen), list(chosen.values()), side=side)

    def last(value: float | None) -> str:
        return decimal(float(f"{value:.7g}")) if value is not None else "never"

    overflow = {
        dtype: frontier("cross_entropy", "naive", dtype, "peak").nonfinite_from
        for dtype in ("fp16", "bf16", "fp32", "fp64")
    }
    log_zero = {
        dtype: frontier("cross_entropy", "softmax_log", dtype, "trough").nonfinite_from
        for dtype in ("fp16", "bf16", "fp32", "fp64")
    }
    clamp = frontier("cross_entropy", "clamped", "fp32", "trough")
    clamp16 = frontier("cross_entropy", "clamped", "fp16", "trough")
    norm = frontier("normalize", "naive", "fp32", "peak")
    low = frontier("normalize", "naive", "fp32", "peak", "low")
    wrong = [r for r in run.records if r.path == "triton" and not r.verdict.is_accurate]
    ours = [r for r in run.records if r.path == "triton"]
    return [
        "exp, divide, log: no longer finite once one logit reaches "
        + ", ".join(f"{last(value)} ({dtype})" for dtype, value in overflow.items())
        + ": exp overflows.",
        "softmax, then log: infinite once the target lies "
        + ", ".join(f"{last(value)} ({dtype})" for dtype, value in log_zero.items())
        + " below the largest logit: the probability underflows, and it is log(0).",
        f"The clamp at 1e-9 keeps fp32 finite, and wrong from {last(clamp.inaccurate_from)} on,"
        f" where it takes over; in fp16 1e-9 rounds to 0, and the loss is infinite from"
        f" {last(clamp16.nonfinite_from)} as if the clamp were not there.",
        f"x/sqrt(sum x²) in fp32 is silently zero from {last(norm.inaccurate_from)} on, and NaN"
        f" from {last(low.nonfinite_from)} down.",
        f"The Triton paths: {len(wrong)} of {len(ours)} cases are not right.",
    ]


if __name__ == "__main__":
    main()
