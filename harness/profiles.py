"""Profiles: several suites as one job with a time for each, `stability run --profile gpu`.

Each part writes a run directory of its own as it goes, so that what is cut short leaves what was
done. A part ends when its share of the time is over, and time that a part does not need goes to
those after it.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.environment import choose_device, device_name
from harness.errors import InputError, unknown
from harness.request import Request
from harness.run import known_suites, run_suites


@dataclass(frozen=True, slots=True)
class Part:
    """One suite of a profile."""

    suite: str
    seconds: float  # its share of the profile's time
    request: Request = field(default=Request())


@dataclass(frozen=True, slots=True)
class Profile:
    """Suites in their order, and the device that they need."""

    device: str
    parts: tuple[Part, ...]


# Less than nine minutes in all, closing included. Stability without
# bisection: its truth is computed on the CPU, where the frontiers of all paths take longer than
# this; the grid already shows what breaks on the GPU. A suite that is not there yet is left out.
PROFILES = {
    "gpu": Profile(
        "cuda",
        (
            Part("conformance", 140.0),
            Part("stability", 140.0, Request(quick=True)),
            Part("speed", 185.0),
            Part("training", 45.0, Request(quick=True)),
        ),
    )
}
_CLOSING_S = 20.0  # of a timed part: its last item and its tables come after its budget
_LEAST_S = 5.0


def run_profile(
    name: str,
    *,
    out: Path | None,
    device: str | None,
    run: Callable[..., tuple[int, Path]] = run_suites,
    now: Callable[[], float] = time.monotonic,
) -> tuple[list[int], list[Path]]:
    """Run the parts; return pytest's exit code and the run directory of each.

    Raises:
        InputError: for an unknown profile, or where its device is missing.
    """
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    profile = PROFILES[name]
    if device is not None and device != profile.device:
        raise InputError(f"the profile {name} is for --device {profile.device}, not {device}")
    choose_device(profile.device)
    directory = out or _new_directory(profile.device)
    codes, directories = list[int](), list[Path]()
    until = now()
    present = known_suites()
    for part in profile.parts:
        until += part.seconds
        if part.suite not in present:
            print(f"stability: no suite {part.suite} yet; left out", file=sys.stderr)
            continue
        left = until - now()
        if left < _LEAST_S:
            print(f"stability: no time left for {part.suite}", file=sys.stderr)
            codes.append(int(pytest.ExitCode.INTERRUPTED))
            continue
        print(f"stability: {part.suite}, at most {left:.0f} s", file=sys.stderr)
        code, written = run(
            [part.suite],
            part.request,
            out=directory / part.suite,
            device=profile.device,
            resume=False,
            jobs=None,
            budget_s=max(left - _CLOSING_S, _LEAST_S),
            deadline_s=left,
        )
        codes.append(code)
        directories.append(written)
    return codes, directories


def _new_directory(device: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{stamp}-{device_name(device)}-profile"
