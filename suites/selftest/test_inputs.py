"""Inputs: the same draw for every path, magnitude, subset and order, scaled, clipped, rounded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness import Operation, Path, Regime
from harness.catalog import load_catalog
from harness.environment import choose_device
from harness.formats import FORMATS, Format
from harness.inputs import build_batch, generator_for
from harness.magnitudes import grid
from harness.plan import Item
from harness.poison import bits_of
from harness.sweep import sweep_item

choose_device(None)  # before the catalog imports triton

CATALOG = load_catalog()
# Every layout that is swept: masks, ignored targets and soft targets among them.
every_regime = pytest.mark.parametrize(
    ("operation", "regime"),
    [(operation, regime) for operation in CATALOG.values() for regime in operation.regimes],
    ids=lambda each: each.name,
)
# The narrowest range, and the one whose top overflows a double while it is scaled.
extreme_formats = pytest.mark.parametrize("fmt", [FORMATS["fp16"], FORMATS["fp64"]], ids=str)


def same_bits(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(bits_of(first), bits_of(second))


@every_regime
@extreme_formats
def test_a_block_of_a_batch_is_the_batch_of_its_magnitude(
    operation: Operation, regime: Regime, fmt: Format
) -> None:
    """Bit by bit, for all roles, whichever magnitudes stand beside it and in whatever order."""
    magnitudes = grid(fmt, regime.magnitudes(fmt), quick=True)[::-1]
    batch = build_batch(operation, regime, fmt, magnitudes, seed=5)
    for place, magnitude in enumerate(magnitudes):
        alone = build_batch(operation, regime, fmt, [magnitude], seed=5)
        block = slice(place * batch.rows, (place + 1) * batch.rows)
        assert batch.rows == alone.rows == operation.shape_in(regime)[0]
        assert batch.roles.keys() == alone.roles.keys()
        for role, value in batch.roles.items():
            part = value if role in batch.shared else value[block]
            assert same_bits(part, alone.roles[role])


@every_regime
@extreme_formats
def test_inputs_hold_no_new_nan_and_no_new_infinity(
    operation: Operation, regime: Regime, fmt: Format
) -> None:
    """At every magnitude: what is not finite is where the regime put it, everything else finite."""
    magnitudes = grid(fmt, regime.magnitudes(fmt))
    scaled, *others = build_batch(operation, regime, fmt, magnitudes, seed=0).roles.values()
    base = next(iter(build_batch(operation, regime, fmt, [1.0], seed=0).roles.values()))
    for strange in (torch.isneginf, torch.isposinf, torch.isnan):
        assert torch.equal(strange(scaled), strange(base).repeat(len(magnitudes), 1))
    assert all(bool(torch.isfinite(other).all()) for other in others)
    assert scaled.dtype == fmt.dtype


def test_masks_are_there_to_be_preserved() -> None:
    """The masked regime hides about half of the entries, but never a target."""
    operation = CATALOG["cross_entropy"]
    roles = build_batch(operation, operation.regime("masked"), FORMATS["fp16"], [1.0], seed=0).roles
    hidden = torch.isneginf(roles["input"])
    assert 0.25 < hidden.double().mean().item() < 0.75
    assert not bool(hidden.gather(1, roles["target"][:, None]).any())


def test_a_mask_survives_magnitude_zero() -> None:
    """0 times -inf is NaN; a mask stays -inf all the same."""
    operation = CATALOG["cross_entropy"]
    roles = build_batch(operation, operation.regime("masked"), FORMATS["fp32"], [0.0], seed=0).roles
    assert set(roles["input"].unique().tolist()) == {-np.inf, 0.0}


@extreme_formats
def test_values_beyond_the_range_are_clipped_to_the_largest(fmt: Format) -> None:
    """A Gaussian at the largest magnitude: entries beyond 1 become the largest float, by sign."""
    operation = CATALOG["normalize"]
    regime = operation.regime("normal")
    base = next(iter(build_batch(operation, regime, FORMATS["fp64"], [1.0], seed=0).roles.values()))
    top = next(iter(build_batch(operation, regime, fmt, [fmt.largest], seed=0).roles.values()))
    beyond = base.abs() > 1
    assert bool(beyond.any())
    assert bool((top[beyond].double() == base[beyond].sign() * fmt.largest).all())
    assert bool((top[~beyond].double().abs() <= fmt.largest).all())


streams = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["cross_entropy", "normalize"]),
    st.sampled_from(["normal", "peak"]),
    st.sampled_from([(4, 64), (4, 6), (46, 4)]),
    st.sampled_from(["input", "target"]),
)


@given(streams, streams)
def test_a_draw_depends_on_its_five_names_alone(one: tuple, other: tuple) -> None:
    """The same five give the same numbers, any difference in one of them gives others."""

    def drawn(key: tuple) -> list[float]:
        names = ("seed", "operation", "regime", "shape", "role")
        return generator_for(**dict(zip(names, key, strict=True))).random(8).tolist()

    assert (drawn(one) == drawn(other)) == (one == other)


def watching(seen: list[Tensor]) -> Path:
    """A path that keeps what it was given."""

    def function(input: Tensor) -> Tensor:
        seen.append(input.detach().clone())
        return input * 1.0

    return Path("watching", function)


def test_every_path_subset_and_order_sees_the_same_rows() -> None:
    """What reaches a path at a magnitude is the same whatever is swept beside it."""
    operation = CATALOG["normalize"]
    regime, fmt = operation.regime("outlier"), FORMATS["bf16"]
    rows: dict[float, list[Tensor]] = {}
    for magnitudes in ((1.0, 2.0, 1024.0), (1024.0, 1.0), (2.0,)):
        seen: list[Tensor] = []
        item = Item(operation, watching(seen), fmt, regime, magnitudes, ("forward", "backward"))
        sweep_item(item, seed=1, device="cpu", refine=False)
        assert len(seen) == 2  # run twice, to see whether it repeats itself
        blocks = [block for each in seen for block in each.split(operation.shape[0])]
        for magnitude, block in zip(magnitudes * 2, blocks, strict=True):
            rows.setdefault(magnitude, []).append(block)
    assert {magnitude: len(blocks) for magnitude, blocks in rows.items()} == {1: 4, 2: 4, 1024: 4}
    assert all(same_bits(each, blocks[0]) for blocks in rows.values() for each in blocks)
