"""Writes the operation that failed as a few lines of Python and a file of plain tensors.

The file is read with `weights_only=True`: no code is unpickled. The reproduction is run once in a
process of its own before anything is claimed.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from harness.diagnosis.cause import Evidence, Verdict
from harness.diagnosis.finding import Finding
from harness.diagnosis.launches import Launch
from harness.diagnosis.tape import outputs_of, tensors_in

# Larger inputs are not written: a reproduction is something to attach to a bug report.
_LIMIT = 256 << 20

_SCRIPT = '''\
"""{cause}: {value} from {op}, step {step}, {where}. Written by `stability diagnose --save`."""

import sys
from pathlib import Path

import torch

data = torch.load(Path(__file__).with_name("{data}"), weights_only=True)
out = torch.ops.{call}(*data["args"], **data["kwargs"])
outs = data["args"] if out is None else out if isinstance(out, (list, tuple)) else [out]
outs = [each for each in outs if isinstance(each, torch.Tensor) and each.is_floating_point()]
bad = sum(int((~each.isfinite()).sum()) for each in outs)
print(f"{{bad}} of {{sum(each.numel() for each in outs)}} entries are not finite")
sys.exit(0 if bad else 1)
'''


def save_reproduction(
    directory: Path,
    finding: Finding,
    verdict: Verdict,
    evidence: Evidence,
) -> tuple[str | None, str | None]:
    """Path of the script, or None with the reason."""
    entry = evidence.origin.entry
    if entry is None or not entry.args:
        return None, "no reproduction: the operation's inputs are gone"
    if isinstance(entry.func, Launch):
        return None, "no reproduction: a kernel is not a file of numbers; its inputs are above"
    if not outputs_of(entry):
        return None, "no reproduction: the operation has no floating-point result"
    args, kwargs = _plain(entry.args), _plain(entry.kwargs)
    size = sum(each.nbytes for each in _tensors((args, kwargs)))
    if size > _LIMIT:
        return None, f"no reproduction: its inputs take {size >> 20} MiB"
    name = f"reproduce_step{finding.step}"
    data, script = directory / f"{name}.pt", directory / f"{name}.py"
    try:
        torch.save({"args": args, "kwargs": kwargs}, data)
        script.write_text(
            _SCRIPT.format(
                cause=finding.cause,
                value=finding.value,
                op=evidence.origin.name,
                step=finding.step,
                where=finding.location or "place unknown",
                data=data.name,
                call=f"{entry.func._schema.name.replace('::', '.')}.{entry.func._overloadname}",
            )
        )
        done = subprocess.run(
            [sys.executable, "-B", str(script)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        _remove(data, script)
        return None, f"no reproduction: {str(error).splitlines()[0]}"
    if done.returncode != 0:
        _remove(data, script)
        said = (done.stdout + done.stderr).strip().splitlines()
        return None, f"no reproduction: it did not reproduce ({said[-1] if said else 'no output'})"
    return str(script), None


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value


def _tensors(value: Any) -> list[torch.Tensor]:
    return list(tensors_in(value))


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
