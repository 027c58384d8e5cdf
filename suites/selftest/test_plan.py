"""Filters and shards: what is asked for is what is planned, and every item is in one shard."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InputError, Operation, Path, Regime
from harness.formats import FORMATS
from harness.magnitudes import parse_range
from harness.plan import Filters, Item, parse_shard, plan


def toy(name: str, paths: str, regimes: str) -> Operation:
    """An operation that is never run, with these names separated by spaces."""
    return Operation(
        name,
        "",
        len,
        len,
        len,
        tuple(Regime(each, "", dict) for each in regimes.split()),
        tuple(Path(each, len) for each in paths.split()),
    )


CATALOG = {
    each.name: each
    for each in (
        toy("cross_entropy", "naive torch triton", "normal peak masked"),
        toy("binary_cross_entropy", "naive clamped", "normal peak"),
        toy("normalize", "naive epsilon triton", "normal"),
    )
}
ITEMS = 4 * (3 * 3 + 2 * 2 + 1 * 3)  # dtypes times (regimes times paths) of each operation


def keys(**filters: object) -> list[tuple[str, str, str, str]]:
    return [item.key for item in plan(CATALOG, Filters(**filters))]  # type: ignore[arg-type]


def test_no_filter_plans_everything_once() -> None:
    """Each operation, path, dtype and regime is one item; both passes, the whole range."""
    items = plan(CATALOG, Filters())
    assert len(items) == len({item.id for item in items}) == ITEMS
    assert all(item.passes == ("forward", "backward") for item in items)
    ends = [(item.magnitudes[0], item.magnitudes[-1]) for item in items]
    assert ends == [(item.fmt.smallest, item.fmt.largest) for item in items]


def test_paths_of_one_truth_are_neighbours() -> None:
    """The paths of an operation, dtype and regime follow each other, so that truth is shared."""
    truths = [(key[0], key[2], key[3]) for key in keys()]
    changes = sum(first != second for first, second in itertools.pairwise(truths))
    assert changes == len(set(truths)) - 1


# One filter of each kind, exact and as a glob; counts follow from the catalog above.
@pytest.mark.parametrize(
    ("filters", "place", "names", "count"),
    [
        ({"operation": ("normalize",)}, 0, {"normalize"}, 12),
        ({"operation": ("*cross_entropy",)}, 0, {"cross_entropy", "binary_cross_entropy"}, 52),
        ({"operation": ("cross_entropy",)}, 0, {"cross_entropy"}, 36),
        ({"path": ("triton",)}, 1, {"triton"}, 16),
        ({"path": ("t*", "epsilon")}, 1, {"torch", "triton", "epsilon"}, 32),
        ({"dtype": ("fp16", "bf16")}, 2, {"fp16", "bf16"}, ITEMS // 2),
        ({"dtype": ("fp?2",)}, 2, {"fp32"}, ITEMS // 4),
        ({"regime": ("masked",)}, 3, {"masked"}, 12),
        ({"regime": ("[np]*",)}, 3, {"normal", "peak"}, ITEMS - 12),
    ],
)
def test_a_filter_selects_its_names_alone(
    filters: dict[str, tuple[str, ...]], place: int, names: set[str], count: int
) -> None:
    """Exact names and globs, repeated ones added up; nothing else is planned."""
    found = keys(**filters)
    assert {key[place] for key in found} == names
    assert len(found) == count


def test_filters_are_combined() -> None:
    """An item must pass all of them; one pass alone leaves that pass in the cases."""
    filters = Filters(
        ("cross_entropy",), ("naive",), ("fp64",), ("peak",), ("back*",), parse_range("1")
    )
    (item,) = plan(CATALOG, filters)
    assert [case.id for case in item.cases()] == ["cross_entropy/naive/fp64/peak@1/4x64/backward"]


# One unknown name of each kind; a glob that matches nothing is as wrong as a misspelling, and so is
# one bad name among good ones.
@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (
            {"operation": ("nope",)},
            "unknown operation 'nope'; choose from: binary_cross_entropy, cross_entropy, normalize",
        ),
        ({"path": ("nope*",)}, "unknown path 'nope*'; choose from: clamped, epsilon, naive, torch"),
        ({"dtype": ("fp16", "fp8")}, "unknown dtype 'fp8'; choose from: bf16, fp16, fp32, fp64"),
        ({"regime": ("Peak",)}, "unknown regime 'Peak'; choose from: masked, normal, peak"),
        ({"pass_": ("both",)}, "unknown pass 'both'; choose from: backward, forward"),
        ({"operation": ("normalize",), "path": ("torch",)}, "choose from: epsilon, naive, triton"),
        ({"path": ("epsilon",), "regime": ("masked",)}, "select nothing"),
        ({"dtype": ("fp16",), "magnitude": parse_range("1e5:1e9")}, "select nothing"),
    ],
)
def test_what_cannot_be_selected_is_an_input_error(filters: dict[str, object], says: str) -> None:
    """Unknown names list the valid ones, within the operations chosen; an empty plan says why."""
    with pytest.raises(InputError) as refused:
        keys(**filters)
    assert says in str(refused.value)


# One shard, few, a divisor of the items and not, as many as items, and more than there are.
@pytest.mark.parametrize("count", [1, 2, 7, 8, 12, ITEMS, ITEMS + 1])
def test_shards_partition_the_items(count: int) -> None:
    """Disjoint, together the whole, each in the order of the whole; even in size."""
    whole = keys()
    shards = [keys(shard=(place, count)) for place in range(1, count + 1)]
    taken = [key for shard in shards for key in shard]
    assert len(taken) == len(whole)
    assert set(taken) == set(whole)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all(shard == [key for key in whole if key in shard] for shard in shards[:2])


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_shard_reads_back(place: int, more: int) -> None:
    """`I/N` gives I and N."""
    assert parse_shard(f"{place}/{place + more}") == (place, place + more)


# One defect each: not two numbers, out of range on either side, signs and fractions.
@pytest.mark.parametrize(
    "text", ["", "2", "1/", "/2", "0/2", "3/2", "-1/2", "1.0/2", "1/2/3", "a/b"]
)
def test_a_malformed_shard_is_refused(text: str) -> None:
    """With the form that was expected."""
    with pytest.raises(InputError, match="expected I/N"):
        parse_shard(text)


def test_a_range_that_misses_one_format_leaves_only_that_out() -> None:
    """1e5 to 1e9 is beyond fp16; the other formats get their points of it."""
    items = plan(CATALOG, Filters(magnitude=parse_range("1e5:1e9")))
    assert {item.fmt.name for item in items} == {"bf16", "fp32", "fp64"}


def test_an_item_knows_its_cases() -> None:
    """One case a magnitude and pass, named by the item's key."""
    operation = CATALOG["normalize"]
    item = Item(
        operation,
        operation.path("naive"),
        FORMATS["fp16"],
        operation.regime("normal"),
        (0.5, 2.0),
        ("forward", "backward"),
    )
    assert item.id == "normalize/naive/fp16/normal"
    assert [case.id.removeprefix("normalize/naive/fp16/normal@") for case in item.cases()] == [
        "0.5/4x64/forward",
        "0.5/4x64/backward",
        "2/4x64/forward",
        "2/4x64/backward",
    ]


def test_an_absent_path_is_told_once_a_dtype() -> None:
    """A library that is not installed takes one case of each dtype; the others keep their grids."""
    operation = toy("one", "here", "first second")
    absent = Path("absent", len, absent=lambda: True)
    operation = replace(operation, paths=(*operation.paths, absent))
    items = plan({"one": operation}, Filters(dtype=("fp16", "fp32")))
    told = [item for item in items if item.path is absent]
    assert [(each.fmt.name, each.magnitudes) for each in told] == [
        ("fp16", (1.0,)),
        ("fp32", (1.0,)),
    ]
    others = [item for item in items if item.path is not absent]
    assert len(others) == 4
    assert all(len(each.magnitudes) > 1 for each in others)
