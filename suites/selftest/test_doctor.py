"""`stability doctor`: each planted problem is found, named, and comes with what to do."""

import json
import shutil
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness import doctor, doctor_kernel, doctor_probe
from harness.doctor import Finding, Level
from suites.selftest.conftest import Stability


def found(findings: Iterable[Finding], check: str) -> Finding:
    (one,) = [each for each in findings if each.check == check]
    return one


def bad(findings: Iterable[Finding]) -> list[Finding]:
    worse = [each for each in findings if each.level in (Level.problem, Level.warning)]
    assert all(each.advice for each in worse), "a problem without what to do"
    return worse


def test_this_environment_has_what_the_project_asks_for() -> None:
    """The versions that the tests run on are within the range, and nothing hides the kernels."""
    findings = list(doctor.package_versions())
    assert not [each for each in bad(findings) if each.told != "not installed"]
    assert {found(findings, name).level for name in ("torch", "triton")} == {Level.ok}
    assert not [each for each in doctor.kernels_package() if each.level is Level.problem]


# Too old, too new, and not there: of whatever dependency.
@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        ("torch<2", "outside the tested range <2"),
        ("numpy>=99", "outside the tested range >=99"),
        ("no-such-package>=1", "not installed"),
    ],
)
def test_a_version_outside_the_range_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, requirement: str, told: str
) -> None:
    """It names the version, the range, and the command that mends it."""
    monkeypatch.setattr(doctor, "requirements", lambda: [requirement])
    (finding,) = bad(doctor.package_versions())
    assert told in finding.told
    assert finding.advice == f"pip install '{requirement}'"


def test_the_hub_client_of_the_same_name_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed beside ours: a warning. In place of ours: a problem."""
    monkeypatch.setattr(doctor, "_version", lambda name: "0.11.3")
    (warning,) = doctor.kernels_package()
    assert (warning.level, "0.11.3" in warning.told) == (Level.warning, True)
    other = types.SimpleNamespace(origin="/site-packages/kernels/__init__.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: other)
    (problem,) = doctor.kernels_package()
    assert problem.level is Level.problem
    assert "/site-packages/kernels" in problem.told


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    """Below a folder that takes no files from anybody, and where there is a file."""
    (tmp_path / "file").touch()
    for place in (Path("/proc/results"), tmp_path / "file" / "results"):
        finding = found(doctor.places(place), "results")
        assert finding.level is Level.problem
        assert "--out" in finding.advice
    assert found(doctor.places(tmp_path / "new" / "results"), "results").level is Level.ok
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_nearly_full_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is left and what is needed."""
    usage = shutil.disk_usage(tmp_path)._replace(free=300 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    finding = found(doctor.places(tmp_path), "results")
    assert finding.level is Level.warning
    assert "0.3 GiB free" in finding.told


# A library that does not load, that takes the process with it, and that never comes back.
@pytest.mark.parametrize(
    ("torch", "told"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "libcudart.so.12"),
        ("import os; os.abort()", "signal 6"),
        ("import time; time.sleep(60)", "did not answer within"),
    ],
)
def test_what_breaks_a_probe_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str, told: str
) -> None:
    """One problem, in words, and the command to see it by hand."""
    (tmp_path / "torch.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_PATIENCE_S", 2.0)
    (finding,) = bad(doctor.probed("interpreter", TRITON_INTERPRET="1"))
    assert finding.level is Level.problem
    assert told in finding.told


def test_a_kernel_that_computes_wrongly_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real kernel is right; one whose last element is off by one is not."""
    assert [each.level for each in doctor_probe.interpreter()] == [Level.ok]

    class Off:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            def launch(x: Any, y: Any, *, LENGTH: int) -> None:
                y.copy_(2 * x + 1)
                y[-1] += 1

            return launch

    monkeypatch.setattr(doctor_kernel, "twice_plus_one", Off())
    (finding,) = bad(doctor_probe.interpreter())
    assert "gave 128.0 for 2 * 63 + 1" in finding.told


def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build without CUDA, or a driver too old for it; no GPU at all is only noted."""
    torch = types.SimpleNamespace(__version__="9", version=types.SimpleNamespace(cuda=None))
    nvml = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda place: place,
        nvmlDeviceGetName=lambda handle: "NVIDIA H100",
        nvmlSystemGetDriverVersion=lambda: "470.1",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    (built_without,) = bad(doctor_probe._no_cuda(torch))
    assert "H100 (driver 470.1) is here, but torch 9 is built without CUDA" in built_without.told
    torch.version.cuda = "13.0"
    (too_old,) = bad(doctor_probe._no_cuda(torch))
    assert "update the driver" in too_old.advice
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (none,) = doctor_probe._no_cuda(torch)
    assert none.level is Level.note


def test_a_check_that_fails_does_not_end_the_others(
    stability: Stability, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its failure is a problem, exit code 1, and JSON says as much as the lines do."""

    def fails() -> Iterable[Finding]:
        raise RuntimeError("no packages\x1b[31m")

    def probed(name: str, **settings: str) -> Iterable[Finding]:
        return [Finding(name, Level.ok, "fine")]

    monkeypatch.setattr(doctor, "package_versions", fails)
    monkeypatch.setattr(doctor, "probed", probed)
    done = stability("doctor", "--out", tmp_path)
    assert done.code == 1
    assert "problem packages: this check failed: RuntimeError: no packages?[31m" in done.out
    assert "ok      peers: fine" in done.out
    plain = json.loads(stability("doctor", "--out", tmp_path, "--json").out)
    assert plain["problems"] == 1
    assert [each["check"] for each in plain["findings"]][-1] == "peers"


@pytest.mark.full  # imports torch four times and compiles for four targets: ten seconds
def test_a_sound_installation_has_no_problem(stability: Stability, tmp_path: Path) -> None:
    """All checks, for real, in their own processes."""
    done = stability("doctor", "--out", tmp_path)
    assert done.code == 0, done.out
    assert "builds for cuda:80, cuda:90, cuda:100, hip:gfx942" in done.out
    assert "numbers right" in done.out
