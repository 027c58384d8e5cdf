"""The suite's models and data, as lanes need them."""

import pytest
import torch
from torch import Tensor, nn

from harness.training.lanes import run_lanes
from harness.training.precision import PRECISIONS
from harness.training.sequential import run_sequential
from harness.training.setting import Lane, Setting
from harness.training.workload import Workload
from suites.training import data, models
from suites.training.workloads import WORKLOADS

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
def test_products_of_halves_are_torchs(dtype: torch.dtype) -> None:
    """Output and gradients within a unit in the last place of nn.Linear's in that dtype."""
    torch.manual_seed(0)
    layer = models.Linear(32, 16).to(dtype)
    x = torch.randn(8, 32, dtype=dtype, requires_grad=True)
    upstream = torch.randn(8, 16, dtype=dtype)

    def results(y: Tensor) -> list[Tensor]:
        return [y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream)]

    mine = [each.detach() for each in results(layer(x))]
    native = nn.functional.linear(x, layer.weight, layer.bias)
    theirs = [each.detach() for each in results(native)]
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == dtype
        # One unit of the largest entry, 2**-10 or 2**-7 of it: sums may cancel below that.
        bound = torch.finfo(dtype).eps * float(other.abs().max())
        assert float((one.double() - other.double()).abs().max()) <= bound


@pytest.mark.parametrize("dtype", HALVES)
def test_a_lane_is_in_autocasts_dtype(dtype: torch.dtype) -> None:
    """Under vmap, too, where torch adds the fp32 bias after autocast and returns fp32."""
    layer = models.Linear(4, 3)
    parameters = {name: torch.stack([each, each]) for name, each in layer.named_parameters()}

    def outputs(module: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return torch.func.vmap(lambda p, x: torch.func.functional_call(module, p, (x,)))(
                parameters, torch.ones(2, 5, 4)
            )

    assert outputs(layer).dtype == dtype
    plain = nn.Linear(4, 3)
    assert outputs(plain).dtype == torch.float32  # or the detour could go


def test_the_vocabulary_is_large() -> None:
    """More than ten thousand words of the standard library; targets are the next ones."""
    text = data.standard_library()
    assert int(text.train_inputs.max()) > 10_000
    assert torch.equal(text.train_inputs[:, 1:], text.train_targets[:, :-1])
    assert len(torch.unique(text.train_inputs)) > 10_000


def test_standardised_by_the_training_part() -> None:
    """Mean 0 and deviation 1 there, and not quite on the test set."""
    split = data.breast_cancer(standardised=True)
    assert float(split.train_inputs.mean(dim=0).abs().max()) < 1e-12
    assert float((split.train_inputs.std(dim=0) - 1).abs().max()) < 1e-12
    assert float(split.test_inputs.mean(dim=0).abs().max()) > 1e-3


# The wide ones differ from digits_relu in width alone.
@pytest.mark.parametrize(
    "workload",
    [each for each in WORKLOADS if "_wide_" not in each.name],
    ids=lambda each: each.name,
)
def test_each_workload_trains_as_lanes_and_alone(workload: Workload) -> None:
    """Two steps in fp64 on torch's cost end at the same loss either way."""
    setting = Setting(workload.name, "torch", "fp64")
    lanes = [Lane(0.01, 0), Lane(0.02, 1)]
    with workload.context(setting):
        beside, _ = run_lanes(workload, setting, lanes, 2, device="cpu")
        alone, _ = run_sequential(workload, setting, lanes, 2, device="cpu")
    for one, other in zip(beside, alone, strict=True):
        assert one.final_loss == pytest.approx(other.final_loss, rel=1e-10)


@pytest.mark.parametrize("precision", ["fp16", "autocast_fp16", "autocast_bf16"])
def test_attention_in_a_lane_is_the_run_alone(precision: str) -> None:
    """Three steps of the decoder: products, softmax and norms in the same formats either way."""
    (workload,) = (each for each in WORKLOADS if each.name == "words")
    setting = Setting("words", "torch", precision, normalization="layer")
    lanes = [Lane(0.1, 0), Lane(0.3, 1)]
    with workload.context(setting):
        beside, _ = run_lanes(workload, setting, lanes, 3, device="cpu")
        alone, _ = run_sequential(workload, setting, lanes, 3, device="cpu")
    # Losses near 9.4 in half formats: a few units in the last place of 2**-7 and 2**-4.
    tolerance = 3e-2 if "bf16" in precision else 4e-3
    for one, other in zip(beside, alone, strict=True):
        mine, theirs = one.notes.history["loss"], other.notes.history["loss"]
        assert mine == pytest.approx(theirs, rel=tolerance)
        assert one.final_loss == pytest.approx(other.final_loss, rel=tolerance)


@pytest.mark.parametrize(("precision", "asked"), [("tf32", True), ("fp32", False)])
def test_tf32_in_both_passes_or_in_neither(precision: str, asked: bool) -> None:
    """The switches for products and convolutions hold for a whole run, and are put back."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in switches]
    with PRECISIONS[precision].products():
        assert [each.allow_tf32 for each in switches] == [asked, asked]
    assert [each.allow_tf32 for each in switches] == before


def test_some_embeddings_are_dead() -> None:
    """What the metric workload is about: before the first step some x are exactly zero."""
    (workload,) = (each for each in WORKLOADS if each.name == "digits_metric")
    torch.manual_seed(0)
    embeddings = workload.model("none").double()(data.digits(images=False).train_inputs)
    dead = int((embeddings == 0).all(dim=-1).sum())
    assert 0 < dead < len(embeddings) / 4


@pytest.mark.parametrize("normalization", models.NORMALIZATIONS)
def test_every_normalisation_trains(normalization: str) -> None:
    """A few steps lower the loss of a perceptron with each, FastNorm inferring its norms."""
    (workload,) = (each for each in WORKLOADS if each.name == "digits_relu")
    setting = Setting("digits_relu", "torch", "fp32", normalization=normalization)
    engine = run_sequential if normalization in workload.modules else run_lanes
    with workload.context(setting):
        (found,), _ = engine(workload, setting, [Lane(0.3, 0)], 12, device="cpu")
    assert found.final_loss is not None
    assert found.initial_loss is not None
    assert found.final_loss < found.initial_loss
