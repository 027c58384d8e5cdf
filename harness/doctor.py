"""Whether this installation works, end to end, and what to do where it does not.

Whatever imports torch or runs a kernel is tried in a process of its own (`doctor_probe`): one that
crashes or hangs is a finding, and Triton's interpreter is chosen when a process starts.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = "stability-harness"
_LEAST_FREE = 2 * 2**30  # bytes: a full run of all suites and Triton's caches, with room
_PATIENCE_S = 180.0  # of a probe; the slowest, compiling for four targets, takes some seconds


class Level(StrEnum):
    """How a finding counts: only a problem makes the command fail."""

    ok = "ok"
    note = "note"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what it is like, and what to do about it."""

    check: str
    level: Level
    told: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(results: Path) -> Iterator[Finding]:
    """Every finding, as soon as it is known; a check that fails itself is a problem, not the end.

    `results` is where runs will be written.
    """
    checks: dict[str, Check] = {
        "python": python_version,
        "packages": package_versions,
        "kernels": kernels_package,
        "results": lambda: places(results),
        "interpreter": lambda: probed("interpreter", TRITON_INTERPRET="1"),
        "compiler": lambda: probed("compiler"),
        "cuda": lambda: probed("cuda"),
        "peers": lambda: probed("peers", TRITON_INTERPRET="1"),
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - the others are still worth knowing
            told = f"this check failed: {type(error).__name__}: {error}"
            yield Finding(name, Level.problem, told, "please report it")


def python_version() -> Iterator[Finding]:
    """3.11 to 3.13 on Linux: what the tests run on."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", Level.ok, version)
    else:
        advice = "make .venv with Python 3.11 to 3.13"
        yield Finding("python", Level.warning, f"{version} is untested", advice)
    if sys.platform != "linux":
        advice = "Triton has wheels for Linux only; use a Linux machine, or WSL2 on Windows"
        yield Finding("system", Level.problem, sys.platform, advice)


def requirements() -> list[str]:
    """What this project asks for: of the installed package, else of the checkout."""
    pyproject = ROOT / "pyproject.toml"
    if pyproject.is_file():
        import tomllib

        found = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
        return [str(each) for each in found]
    return [each for each in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in each]


def package_versions() -> Iterator[Finding]:
    """Each dependency is there, in a version within the range that is tested."""
    from packaging.requirements import Requirement

    good = []
    for each in map(Requirement, requirements()):
        if each.marker is not None and not each.marker.evaluate():
            continue
        version = _version(each.name)
        advice = f"pip install '{each.name}{each.specifier}'"
        if version is None:
            yield Finding(each.name, Level.problem, "not installed", advice)
        elif not each.specifier.contains(version, prereleases=True):
            told = f"{version} is outside the tested range {each.specifier}"
            yield Finding(each.name, Level.problem, told, advice)
        elif each.name in ("torch", "triton"):
            yield Finding(each.name, Level.ok, f"{version}, tested: {each.specifier}")
        else:
            good.append(f"{each.name} {version}")
    if good:
        yield Finding("packages", Level.ok, ", ".join(good))


def kernels_package() -> Iterator[Finding]:
    """An unrelated client of a model hub has the same top-level name, `kernels`."""
    found = importlib.util.find_spec("kernels")
    origin = Path(found.origin).parent if found is not None and found.origin else None
    version = _version("kernels")
    advice = "pip uninstall kernels, or keep the two in different environments"
    if origin != ROOT / "kernels":
        told = f"`import kernels` finds {origin or 'nothing'}, not the kernels of this project"
        yield Finding("kernels", Level.problem, told, advice)
    elif version is None:
        yield Finding("kernels", Level.ok, "no other package of this name")
    else:
        told = (
            f"the unrelated package kernels {version} (a client for a model hub) is installed: one"
            " hides the other, and transformers may take ours for it"
        )
        yield Finding("kernels", Level.warning, told, advice)


def places(results: Path) -> Iterator[Finding]:
    """Runs can be written where they will be, caches too, and there is room."""
    cache = os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton")
    for name, folder, advice in (
        ("results", results, "name a writable directory with --out"),
        ("triton cache", Path(cache), "set TRITON_CACHE_DIR to a writable directory"),
    ):
        existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        try:
            # Written to find out: permission bits say nothing to root, or of a read-only disk.
            with tempfile.TemporaryFile(dir=existing) as stream:
                stream.write(b"\0")
        except OSError as error:
            told = f"{folder} cannot be written: {error.strerror or error}"
            yield Finding(name, Level.problem, told, advice)
            continue
        free = shutil.disk_usage(existing).free
        told = f"{folder} can be written, {free / 2**30:.1f} GiB free"
        if free < _LEAST_FREE:
            advice = f"make room: a full run wants some {_LEAST_FREE // 2**30} GiB"
            yield Finding(name, Level.warning, told, advice)
        else:
            yield Finding(name, Level.ok, told)


def probed(name: str, **settings: str) -> Iterator[Finding]:
    """What `doctor_probe` finds in a process of its own; its death is a finding, too."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | settings
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    command = [sys.executable, "-m", "harness.doctor_probe", name]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        told = f"did not answer within {_PATIENCE_S:.0f} s"
        advice = f"run it by hand: {' '.join(command)}; a stuck driver is likely"
        yield Finding(name, Level.problem, told, advice)
        return
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        yield from (Finding(**each | {"level": Level(each["level"])}) for each in found)
    except (ValueError, IndexError, TypeError, KeyError):
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        told = f"the probe ended with {ended}: {last}"
        yield Finding(name, Level.problem, told, f"run it by hand: {' '.join(command)}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
