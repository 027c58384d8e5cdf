"""Inputs of training size: a drawn block repeated on the device, and what is known of its rows."""

import random

import pytest
import torch

from harness.formats import FORMATS
from harness.timing.footprint import footprint_of
from harness.timing.speed_case import SpeedGroup, group_of
from harness.timing.tiled import draw, tile
from harness.timing.workload import Size
from suites.catalog import OPERATIONS, speed_workloads
from suites.catalog.cross_entropy import CROSS_ENTROPY
from suites.catalog.rms_norm import RMS_NORM

# More rows than a block of them, and a count that the block does not divide.
ROWS, COLUMNS = 205, 2**16  # blocks of 64


def group(regime: str = "normal", rows: int = ROWS, columns: int = COLUMNS) -> SpeedGroup:
    size = Size(rows, columns)
    return group_of(
        CROSS_ENTROPY, FORMATS["bf16"], regime, 1.0, size, "both", device="cuda", level="full"
    )


def test_each_set_repeats_the_block_in_its_own_order() -> None:
    """Every row of the block is there, no set has a row where another has it, targets go along."""
    drawn = draw(group(), seed=0)
    inputs = tile(drawn, (ROWS, COLUMNS), device="cpu", count=3)
    count = drawn.block.roles["input"].shape[0]
    assert count < ROWS
    for number, given in enumerate(inputs.sets):
        index = inputs.indices(number)
        assert sorted(set(index.tolist())) == list(range(count))
        assert torch.equal(given["input"].detach(), drawn.block.roles["input"][index])
        assert torch.equal(given["target"], drawn.block.roles["target"][index])
    orders = [inputs.indices(number) for number in range(3)]
    assert not (orders[0] == orders[1]).any()
    assert not (orders[1] == orders[2]).any()


def test_judged_rows_are_found_again_at_changing_places() -> None:
    """A place holds the very row whose truth is known; two draws of places differ."""
    drawn = draw(group(), seed=0)
    inputs = tile(drawn, (ROWS, COLUMNS), device="cpu", count=2)
    chooser = random.Random(0)
    first, second = inputs.places(1, chooser), inputs.places(1, chooser)
    assert first != second
    for places in (first, second):
        assert max(places) < ROWS
        found = inputs.sets[1]["input"].detach()[places]
        assert torch.equal(found, drawn.block.roles["input"][list(drawn.judged)])
    truth = CROSS_ENTROPY.truth(
        {
            "input": inputs.sets[1]["input"].detach()[first].double(),
            "target": inputs.sets[1]["target"][first],
        }
    )
    assert torch.equal(truth["forward"], drawn.expected["forward"].high)


def test_a_single_changed_bit_is_seen() -> None:
    """In any role, in a repeated row, in the sign of a zero; and only in the set that has it."""
    size = Size(37, 64)
    one = group_of(
        RMS_NORM, FORMATS["fp32"], "zeros", 0.0, size, "both", device="cuda", level="full"
    )
    drawn = draw(one, seed=0)
    inputs = tile(drawn, (37, 64), device="cpu", count=2)
    assert not any(inputs.changed(number) for number in range(2))
    with torch.no_grad():
        inputs.sets[0]["input"][36, 63] = -0.0
    assert [inputs.changed(number) for number in range(2)] == [True, False]
    with torch.no_grad():
        inputs.sets[0]["input"][36, 63] = 0.0
        inputs.sets[1]["weight"][0] += 1.0  # shared: the same tensor in both
    assert [inputs.changed(number) for number in range(2)] == [True, True]
    inputs.restore(0)
    assert not any(inputs.changed(number) for number in range(2))


def test_half_of_a_special_regime_s_rows_are_special() -> None:
    """NaN-laden input is laden: of each eight rows four hold a NaN, an infinity or only masks."""
    drawn = draw(group("nonfinite", columns=64), seed=0)
    (given,) = tile(drawn, (ROWS, 64), device="cpu", count=1).sets
    strange = (~given["input"].detach().isfinite()).any(dim=1)
    assert 0.45 < float(strange.double().mean()) < 0.55


@pytest.mark.parametrize("name", [each.name for each in OPERATIONS])
def test_each_operation_of_the_catalog_can_be_laid_out(name: str) -> None:
    """Its CPU size is drawn, has a truth, and its least bytes are those of its operands."""
    (operation,) = (each for each in OPERATIONS if each.name == name)
    workload = speed_workloads[name]
    size = Size(8, 64, "quick", workload.cpu[0].options)
    one = group_of(
        workload.adapted(operation, size),
        FORMATS["fp32"],
        "normal",
        1.0,
        size,
        "both",
        device="cpu",
        level="quick",
    )
    drawn = draw(one, seed=0)
    (given,) = tile(drawn, one.shape, device="cpu", count=1).sets
    leaves = [each for each in given.values() if each.requires_grad]
    roles = [each for role, each in given.items() if role != "upstream"]
    result = drawn.expected["forward"].high
    expected = sum(each.numel() * each.element_size() for each in (*roles, *leaves))
    assert footprint_of(one, drawn).moved == expected + 2 * 4 * 8 * result[0].numel()
    assert bool(result.isfinite().all())
