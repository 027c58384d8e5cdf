"""The score of the diagnosis: `python -m suites.selftest.diagnosis_score [NAME...]`."""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from harness.diagnosis.deepen import deepen
from harness.diagnosis.finding import Diagnosis
from harness.diagnosis.session import OWN_FAILURE, Session
from suites.selftest.diagnosis_programs import PROGRAMS
from suites.selftest.diagnosis_programs.program import Program


@dataclass(frozen=True)
class Mark:
    """One program's result."""

    program: Program
    broken: Diagnosis
    repaired: Diagnosis

    @property
    def reported(self) -> bool:
        return bool(self.broken.findings)

    @property
    def op_named(self) -> bool:
        return self.reported and self.broken.findings[0].op in self.program.ops

    @property
    def cause_named(self) -> bool:
        return self.reported and self.broken.findings[0].cause in self.program.causes

    @property
    def line_named(self) -> bool:
        lines = self.program.lines
        return not lines or (self.reported and self._line() in lines)

    def _line(self) -> int:
        return int((self.broken.findings[0].location or ":0").rpartition(":")[2])

    @property
    def own_failures(self) -> tuple[str, ...]:
        """Errors of the diagnosis itself."""
        return tuple(
            note for note in self.broken.notes + self.repaired.notes if OWN_FAILURE in note
        )

    @property
    def false_alarm(self) -> bool:
        return bool(self.repaired.findings)


def diagnose(program: Program, broken: bool, *, replay: bool = True) -> Diagnosis:
    """Run one program under watch, in this process."""
    session = Session(deepen=deepen if replay else None)
    state = torch.get_rng_state()
    session.start()
    try:
        with warnings.catch_warnings():
            # Torch warns of deviations without degrees of freedom: that is the program's defect.
            warnings.simplefilter("ignore")
            program.run(broken)
        session.finish(failed=False)
    except (RuntimeError, ValueError):
        # Some functions refuse the NaN that an earlier step left in the weights.
        session.finish(failed=True)
    finally:
        session.stop()
        torch.set_rng_state(state)
    return session.diagnosis()


def marks(programs: Iterable[Program] = PROGRAMS) -> list[Mark]:
    """All results."""
    return [Mark(each, diagnose(each, True), diagnose(each, False)) for each in programs]


def table(results: list[Mark]) -> str:
    """The score as text: a line for each program that is not perfect, then the sums."""
    lines = []
    for each in results:
        if (
            each.op_named
            and each.cause_named
            and each.line_named
            and not (each.false_alarm or each.own_failures)
        ):
            continue
        got = each.broken.findings[0] if each.reported else None
        said = (
            f"{got.op} {got.cause} ({got.phase}) {got.location}"
            if got
            else f"nothing {each.broken.notes}"
        )
        alarm = ""
        if each.false_alarm:
            wrong = each.repaired.findings[0]
            alarm = f"; false alarm: {wrong.op} {wrong.cause}"
        said += "".join(f"; {note}" for note in each.own_failures)
        lines.append(
            f"{each.program.name}: expected {'|'.join(each.program.ops)} "
            f"{'|'.join(each.program.causes)}, got {said}{alarm}"
        )
    count = len(results)
    reported = sum(each.reported for each in results)
    ops = sum(each.op_named for each in results)
    causes = sum(each.cause_named for each in results)
    lines_named = sum(each.line_named for each in results if each.program.lines)
    asked = sum(bool(each.program.lines) for each in results)
    alarms = sum(each.false_alarm for each in results)
    return "\n".join(
        [
            *lines,
            f"programs            {count}",
            f"reported            {reported} ({reported / count:.0%})",
            f"operation named     {ops} ({ops / count:.0%})",
            f"cause named         {causes} ({causes / count:.0%})",
            f"line named          {lines_named} of {asked} that say which",
            f"alarms when repaired {alarms}",
        ]
    )


def main() -> None:
    """Print the score of the named programs, or of all."""
    names = set(sys.argv[1:])
    print(table(marks(each for each in PROGRAMS if not names or each.name in names)))


if __name__ == "__main__":
    main()
