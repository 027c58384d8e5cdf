"""The peers' adapters: each gives its operation's values, or says in words why it cannot."""

import inspect
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path as Folder

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.catalog import load_catalog
from harness.execute import execute, missing_parameters
from harness.inputs import Batch
from harness.operation import Path
from harness.verdict import Verdict
from suites.catalog import peers
from suites.catalog.peers import compiled, imports, unsloth

ROWS, WIDTH = 6, 64


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def classes(count: int) -> Tensor:
    """One class a row, of which the third is ignored."""
    target = torch.arange(ROWS) * 7 % count
    target[2] = -100
    return target


# Operation -> its roles at harmless values, and torch's own function of them.
OPERATIONS: dict[str, tuple[tuple[Tensor, ...], Callable[..., Tensor]]] = {
    "cross_entropy": (
        (draw(ROWS, WIDTH), classes(WIDTH)),
        partial(F.cross_entropy, reduction="none"),
    ),
    "linear_cross_entropy": (
        (draw(ROWS, WIDTH), draw(32, WIDTH) / 8, classes(32)),
        lambda x, weight, target: F.cross_entropy(F.linear(x, weight), target, reduction="none"),
    ),
    "binary_cross_entropy_with_logits": (
        (draw(ROWS, WIDTH), draw(ROWS, WIDTH).sigmoid()),
        partial(F.binary_cross_entropy_with_logits, reduction="none"),
    ),
    "softmax": ((draw(ROWS, WIDTH),), partial(F.softmax, dim=-1)),
    "log_softmax": ((draw(ROWS, WIDTH),), partial(F.log_softmax, dim=-1)),
    "normalize": ((draw(ROWS, WIDTH),), partial(F.normalize, dim=-1)),
    "rms_norm": (
        (draw(ROWS, WIDTH), draw(WIDTH)),
        lambda x, weight: F.rms_norm(x, (WIDTH,), weight),
    ),
    "layer_norm": (
        (draw(ROWS, WIDTH), draw(WIDTH), draw(WIDTH) + 1),
        lambda x, weight, bias: F.layer_norm(x, (WIDTH,), weight, bias),
    ),
}
PATHS = [(name, path) for name in OPERATIONS for path in peers.paths(name)]
# Inductor takes seconds to minutes a path on a CPU: nightly.
WITH_MARKS = [
    pytest.param(
        name,
        path,
        id=f"{name}-{path.name}",
        marks=[pytest.mark.full] if path.name == "compiled" else [],
    )
    for name, path in PATHS
]
IDS = [f"{name}-{path.name}" for name, path in PATHS]


def run(function: Callable[..., Tensor], roles: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """A result and the gradient of its first role for an upstream that differs from row to row."""
    leaf = roles[0].clone().requires_grad_()
    result = function(leaf.clone(), *(role.clone() for role in roles[1:]))
    result.backward(torch.linspace(0.5, 2.0, result.numel()).reshape(result.shape))
    assert leaf.grad is not None
    return result.detach(), leaf.grad


# Every library under every operation that it has; tame values, where all of them must be right.
@pytest.mark.parametrize(("operation", "path"), WITH_MARKS)
def test_an_adapter_is_right_or_says_why_not(operation: str, path: Path) -> None:
    """On tame inputs value and gradient agree with torch's in fp32, or the reason is a sentence."""
    roles, reference = OPERATIONS[operation]
    on = "cuda" if torch.cuda.is_available() else "cpu"
    roles = tuple(role.to(on) for role in roles)
    reason = ""
    try:
        value, gradient = run(path.function, roles)
    except NotImplementedError as error:
        reason = str(error)
        value, gradient = run(reference, roles)
    assert reason == "" or (len(reason) > 10 and "\n" not in reason)
    expected, slope = run(reference, roles)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_catalog_has_every_library(operation: str) -> None:
    """Whatever library has an operation stands in its tables beside ours."""
    measured = {path.name for path in load_catalog()[operation].paths}
    assert {path.name for path in peers.paths(operation)} <= measured
    assert "compiled" in measured


@pytest.mark.parametrize("operation", ["cross_entropy", "linear_cross_entropy", "softmax"])
def test_liger_really_runs_here(operation: str) -> None:
    """Liger is installed with the peers extra: its rows in the tables are measured, not missing."""
    pytest.importorskip("liger_kernel", reason="the extra `peers` is not installed")
    (path,) = [each for each in peers.paths(operation) if each.name == "liger"]
    on = "cuda" if torch.cuda.is_available() else "cpu"
    value, _ = run(path.function, tuple(role.to(on) for role in OPERATIONS[operation][0]))
    assert torch.isfinite(value).all()


@pytest.mark.parametrize(("operation", "path"), PATHS, ids=IDS)
def test_signatures_tell_roles_and_options(operation: str, path: Path) -> None:
    """Roles have places and options have names, so that the harness sees what a path lacks."""
    roles = [f"role{k}" for k in range(len(OPERATIONS[operation][0]))]
    assert missing_parameters(path.function, roles, ()) == ""
    assert missing_parameters(path.function, roles, ("no_such_option",)) == "no_such_option"
    places = inspect.signature(path.function).parameters.values()
    assert not any(each.kind is each.VAR_POSITIONAL for each in places)
    assert path.package


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every optional library one that is not installed, and nothing remembered."""
    monkeypatch.setattr(imports, "_is_installed", lambda package: False)
    monkeypatch.setattr(imports, "_imported", cache(imports._imported.__wrapped__))
    imports.files_alone.cache_clear()  # adapters hold it by name; a refusal is not remembered


# Not torch.compile, which is torch's.
@pytest.mark.parametrize(
    ("operation", "path"),
    [each for each in PATHS if each[1].package != "torch"],
    ids=[each for each in IDS if not each.endswith("-compiled")],
)
def test_a_missing_library_is_unsupported_with_its_name(
    operation: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the harness an absent library is the verdict unsupported and names what to install."""
    absent(monkeypatch)
    roles = {f"role{k}": role for k, role in enumerate(OPERATIONS[operation][0])}
    weights = tuple(name for name, role in roles.items() if len(role) != ROWS)
    result = execute(
        path,
        Batch(roles, rows=ROWS, shared=weights),
        shape=(ROWS,),
        passes=("forward",),
        device="cpu",
        twice=False,
    )["forward"]
    assert result.fault is Verdict.UNSUPPORTED
    assert f"{path.package} is not installed" in result.reason


def test_an_import_that_fails_is_a_reason_and_is_not_tried_twice(
    tmp_path: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library raises while it is imported becomes one sentence, kept for next time."""
    package = tmp_path / "grumpy_peer"
    package.mkdir()
    (package / "__init__.py").write_text("import grumpy_log\nraise AssertionError('no\\n  GPU')\n")
    (tmp_path / "grumpy_log.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        with pytest.raises(NotImplementedError, match=r"cannot be imported here: Ass.*: no GPU$"):
            imports.function("grumpy_peer", "anything")
        sys.modules.pop("grumpy_log", None)
    assert "grumpy_log" not in sys.modules  # the second time nothing was imported


def test_a_function_that_moved_is_a_reason() -> None:
    """A version without the function that an adapter calls is unsupported, by name."""
    with pytest.raises(NotImplementedError, match=r"has no torch\.no_such_function"):
        imports.function("torch", "no_such_function")


def test_files_alone_run_no_init_and_leave_no_trace(
    tmp_path: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a package that cannot be imported is imported, and sys.modules is as before."""
    inner = tmp_path / "loud_peer" / "ops"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text("raise AssertionError('an __init__ was run')\n")
    (inner / "helper.py").write_text("TWO = 2\n")
    (inner / "kernel.py").write_text(
        "import torch\nfrom loud_peer.ops.helper import TWO\nfrom loud_peer.jit import keep_out\n"
        "@keep_out()\ndef double(x):\n    with torch.cuda.device(x.device.index):\n"
        "        return TWO * x + torch.zeros(())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(sys.modules)
    module = imports.files_alone("loud_peer.ops.kernel", stand_ins=(("loud_peer.jit", "keep_out"),))
    assert module.double(torch.ones(())).item() == 2.0
    assert {name: sys.modules[name] for name in before} == before
    assert not any(name.startswith("loud_peer") for name in sys.modules)


def test_unsloth_is_not_imported_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import would patch torch under the other paths: without the switch it stays out."""
    monkeypatch.delenv(unsloth.SWITCH, raising=False)
    monkeypatch.setattr(imports, "_is_installed", lambda package: True)
    monkeypatch.setattr("suites.catalog.peers.imports.on_triton", lambda first: first)
    with pytest.raises(NotImplementedError, match=rf"{unsloth.SWITCH}=1 .* --path unsloth"):
        unsloth.rms_norm(draw(2, 8), draw(8))
    assert "unsloth" not in sys.modules


def test_compiled_can_be_left_out_and_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the switch at 0, on a CPU unasked or without a C++ compiler, it is unsupported."""
    monkeypatch.setenv(compiled.SWITCH, "0")
    with pytest.raises(NotImplementedError, match="switched off"):
        compiled.softmax(draw(2, 8))
    monkeypatch.delenv(compiled.SWITCH)
    if not torch.cuda.is_available():
        with pytest.raises(NotImplementedError, match="asks for it"):
            compiled.softmax(draw(2, 8))
    monkeypatch.setenv(compiled.SWITCH, "1")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotImplementedError, match=r"C\+\+ compiler"):
        compiled.softmax(draw(2, 8))


@pytest.mark.full  # compiles
def test_compiled_measures_compiled_code_in_the_poisoned_harness() -> None:
    """Under the harness's own allocators, forward and backward, more rows or fewer: one graph."""
    dynamo = pytest.importorskip("torch._dynamo")
    counts = []
    path = Path("compiled", compiled.softmax)
    for rows in (4, 12, 8):
        batch = Batch({"input": draw(rows, 8).double()}, rows=4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = execute(
                path,
                batch,
                shape=(rows, 8),
                passes=("forward", "backward"),
                device="cpu",
                twice=True,
            )
        if outputs["forward"].fault is Verdict.UNSUPPORTED:
            pytest.skip(outputs["forward"].reason)
        value = outputs["forward"].value
        assert value is not None
        torch.testing.assert_close(value, F.softmax(batch.roles["input"], -1))
        assert not bool(outputs["backward"].unrepeatable.any())  # type: ignore[union-attr]
        counts.append(dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[0] == counts[-1], "a number of rows was compiled anew"
