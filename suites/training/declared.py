"""What the harness reads of this suite."""

from suites.training.advice import ADVICE
from suites.training.slices import SLICES
from suites.training.workloads import WORKLOADS

__all__ = ["ADVICE", "SLICES", "WORKLOADS"]
