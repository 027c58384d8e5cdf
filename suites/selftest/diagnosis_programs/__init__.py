"""Small defective trainings, each with its repaired twin: a test of the diagnosis.

A program is a function of one switch. Broken, it must be reported with the operation to change
and the cause; repaired, not at all. `python -m suites.selftest.diagnosis_score` counts.
"""

from suites.selftest.diagnosis_programs import (
    amounts,
    domains,
    logarithms,
    masks,
    overflows,
    quiet,
    rates,
    samples,
    slopes,
)
from suites.selftest.diagnosis_programs.program import Program
from suites.selftest.diagnosis_programs.scripts import SCRIPTS

FUNCTIONS: tuple[Program, ...] = tuple(
    program
    for family in (
        logarithms,
        overflows,
        slopes,
        masks,
        amounts,
        domains,
        samples,
        rates,
        quiet,
    )
    for program in family.__dict__.values()
    if isinstance(program, Program)
)
PROGRAMS = FUNCTIONS + SCRIPTS
