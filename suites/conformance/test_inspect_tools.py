"""`stability inspect` finds what is planted, and does not accuse sound code."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from harness import cli
from harness.errors import InputError
from harness.inspection import Inspected, Inspection, inspect, rows_for
from harness.instructions import innermost_loops, of_assembly, of_cubin, straight_code
from harness.launches import target_named
from harness.render_inspection import lines
from harness.tile_elements import LoopTile, tiles_of

CATALOG = "suites.conformance.planted_launches"
PATHS = ("sound", "narrow", "twice", "spilling", "exponential", "refused", "absent", "torch")
# 4,608 = 9 * 512: 16-byte aligned rows that leave 7 of 16 lanes of a power of two idle.
COLUMNS = 4608


@pytest.fixture(scope="module")
def found() -> Inspection:
    """Every planted path in fp32, compiled for both vendors and counted."""
    cases = [Inspected("double", path, "fp32", 16, COLUMNS) for path in PATHS]
    inspection = inspect(cases, targets=("cuda:90", "hip:gfx942"), catalog=CATALOG)
    assert not inspection.problems
    return inspection


def of_path(found: Inspection, kind: str, path: str) -> list[dict[str, Any]]:
    return [each for each in found.of(kind) if each["case"]["path"] == path]


def kernels_of(found: Inspection, path: str) -> list[dict[str, Any]]:
    kernels = of_path(found, "kernel", path)
    assert {each["target"] for each in kernels} == {"cuda:90", "hip:gfx942"}
    return kernels


def test_sound_code_is_not_accused(found: Inspection) -> None:
    """No spill, 16-byte accesses alone, one read and one write, moved bytes exactly the least."""
    for kernel in kernels_of(found, "sound"):
        assert kernel["spilled_bytes"] == kernel["spill_instructions"] == 0
        assert set(kernel["loads"]) == set(kernel["stores"]) == {"16"}
        # Unrolled by the compiler, with a loop for the rest: one loop still.
        assert (kernel["loops"], kernel["elements"]) == (1, 1024)
        assert kernel["per_element"]["fp32"] == 1.0
        assert kernel["grid"] == [16]
        assert kernel["per_element"]["special"] == 0
    (traffic,) = of_path(found, "traffic", "sound")
    assert traffic["ratio"] == 1.0
    assert traffic["kernels"][0]["operands"]["x"]["reads"] == 1.0
    assert traffic["kernels"][0]["operands"]["y"]["writes"] == 1.0
    assert traffic["kernels"][0]["waste"] == pytest.approx(512 / 5120)


def test_spills_are_found(found: Inspection) -> None:
    """512 live values a thread are too many for 255 registers; AMD's 64 lanes hold 256 each."""
    nvidia, amd = sorted(kernels_of(found, "spilling"), key=lambda each: each["target"])
    assert nvidia["spilled_bytes"] > 0
    assert nvidia["spill_instructions"] > 0
    assert amd["spilled_bytes"] == amd["spill_instructions"] == 0
    assert amd["registers"] > 256


def test_narrow_loads_are_found(found: Inspection) -> None:
    """A stride unknown to the compiler leaves 4-byte accesses where 16 bytes are possible."""
    for kernel in kernels_of(found, "narrow"):
        assert set(kernel["loads"]) == set(kernel["stores"]) == {"4"}


def test_a_second_read_is_found(found: Inspection) -> None:
    """The traffic of a kernel that reads its row twice is 3/2 of the least."""
    (traffic,) = of_path(found, "traffic", "twice")
    assert traffic["kernels"][0]["operands"]["x"]["reads"] == 2.0
    assert traffic["ratio"] == 1.5


def test_special_functions_and_idle_lanes_are_counted(found: Inspection) -> None:
    """One ex2 an element of the tile; 3,584 of its 8,192 lanes are masked."""
    for kernel in kernels_of(found, "exponential"):
        assert kernel["special"]["ex2"] == 1.0
        assert kernel["elements"] == 8192
    (traffic,) = of_path(found, "traffic", "exponential")
    assert traffic["kernels"][0]["waste"] == pytest.approx(3584 / 8192)


def test_a_kernel_that_does_not_compile_is_told(found: Inspection) -> None:
    """The compiler's refusal is an answer with its reason, for each target."""
    failures = of_path(found, "failure", "refused")
    assert len(failures) == 2
    assert all("refused_kernel" in each["kernel"] for each in failures)
    assert all("planted" in each["reason"] for each in failures)


def test_a_path_that_is_not_there_is_told(found: Inspection) -> None:
    """NotImplementedError is `unsupported` with its text, in every process."""
    answers = of_path(found, "unsupported", "absent")
    assert len(answers) == 3
    assert {each["reason"] for each in answers} == {"planted: not here"}


def test_torch_operators_are_counted(found: Inspection) -> None:
    """A path without kernels moves what torch's operators read and write: here once each."""
    forward, backward = of_path(found, "traffic", "torch")
    assert forward["ratio"] == 1.0
    # Of the three that backward might need it reads one, the upstream gradient, and writes one.
    assert backward["ratio"] == pytest.approx(2 / 3)
    assert forward["kernel_bytes"] == backward["kernel_bytes"] == 0


# --- reading listings -----------------------------------------------------------------------------

# Two loops within one, a jump to itself at the end, a subroutine behind the exit.
SASS = """
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;   /* 0x0 */
        /*0010*/              @!P0 LDG.E.U16.CONSTANT R4, [R2] ;      /* 0x0 */
        /*0020*/                   MUFU.EX2 R5, R4 ;                  /* 0x0 */
        /*0030*/               @P1 BRA 0x10 ;                         /* 0x0 */
        /*0040*/                   FFMA R5, R4, R4, R5 ;              /* 0x0 */
        /*0050*/                   STG.E.64 [R2], R4 ;                /* 0x0 */
        /*0060*/               @P1 BRA 0x40 ;                         /* 0x0 */
        /*0070*/               @P2 BRA 0x0 ;                          /* 0x0 */
        /*0080*/                   EXIT ;                             /* 0x0 */
        /*0090*/                   DFMA R2, R2, R4, R6 ;              /* 0x0 */
        /*00a0*/                   RET.REL.NODEC R8 0x0 ;             /* 0x0 */
        /*00b0*/                   BRA 0xb0;                          /* 0x0 */
"""


def test_loops_are_found_in_sass() -> None:
    """Only the innermost loops count, padding is no loop, predicated instructions are seen."""
    code = of_cubin(SASS)
    assert len(code) == 12
    first, second = innermost_loops(code)
    assert [each.kind for each in first] == ["load", "special", "other"]
    assert [each.kind for each in second] == ["fp32", "store", "other"]
    assert first[0].width == 2
    assert first[1].special == "ex2"
    assert second[1].width == 8
    assert [each.address for each in straight_code(code)][-1] == 0x80


def test_loops_are_found_in_amd_assembly() -> None:
    """A branch to a label before it closes a loop; comments and directives are no instructions."""
    code = of_assembly(
        "kernel:\n"
        "\t.p2align\t8\n"
        ".LBB0_1:   ; =>This Inner Loop\n"
        "\tglobal_load_dwordx4 v[0:3], v4, s[0:1]\n"
        "\tv_exp_f32_e32 v0, v0   ; v_log_f32\n"
        "\tv_pk_fma_f32 v[0:1], v[0:1], v[2:3], v[0:1]\n"
        "\ts_cbranch_scc1 .LBB0_1\n"
        "\tscratch_store_dword off, v0, s0\n"
        "\ts_endpgm\n"
    )
    (loop,) = innermost_loops(code)
    assert [(each.kind, each.weight) for each in loop[:3]] == [
        ("load", 1),
        ("special", 1),
        ("fp32", 2),
    ]
    assert loop[0].width == 16
    assert code[-2].kind == "spill"


TTIR = """
module {
  tt.func public @k(%x: !tt.ptr<f32>, %y: !tt.ptr<f32>) attributes {noinline = false} {
    %p = tt.splat %x : !tt.ptr<f32> -> tensor<8x!tt.ptr<f32>>
    %a = tt.load %p : tensor<8x!tt.ptr<f32>>
    %r = scf.for %i = %c0 to %n step %c1 iter_args(%q = %p) -> (tensor<8x!tt.ptr<f32>>) : i32 {
      %s = tt.splat %x : !tt.ptr<f32> -> tensor<2x64x!tt.ptr<f32>>
      %b = tt.load %s, %m : tensor<2x64x!tt.ptr<f32>>
      %c = tt.load %s, %m : tensor<2x64x!tt.ptr<f32>>
      %d = tt.addptr %s, %o : tensor<2x64x!tt.ptr<f32>>, tensor<2x64xi32>
      %e = tt.load %d, %m : tensor<2x64x!tt.ptr<f32>>
      %t = tt.splat %y : !tt.ptr<f32> -> tensor<2x64x!tt.ptr<f32>>
      tt.store %t, %b, %m : tensor<2x64x!tt.ptr<f32>>
      scf.yield %q : tensor<8x!tt.ptr<f32>>
    }
    tt.return
  }
}
"""


def test_tiles_are_read_from_the_ir() -> None:
    """A loop's tile is what it touches of one argument: two addresses of x, one of them twice."""
    tiles = tiles_of(TTIR)
    assert tiles.loops == (LoopTile(elements=256, moved_bytes=4 * 128 * 4, stores=True),)
    assert tiles.straight == 8


@pytest.mark.parametrize(
    # Each malformed in one way: no architecture, no number, out of range, no such vendor, empty.
    "text",
    ["cuda", "cuda:9x", "cuda:9", "hip:942", "hip:gfx", "xpu:1", ""],
)
def test_unknown_targets_are_bad_input(text: str) -> None:
    """What names no target is an InputError that shows the form."""
    with pytest.raises(InputError, match=r"cuda:90"):
        target_named(text)


@pytest.mark.parametrize(
    # The narrowest rows, either side of the 16 rows that are the fewest, and a vocabulary.
    ("columns", "rows"),
    [(1, 16_384), (1024, 16), (513, 16), (512, 32), (128_256, 16)],
)
def test_rows_fill_a_program(columns: int, rows: int) -> None:
    """Narrow rows come in numbers that fill any tile, always a multiple of 16."""
    assert rows_for(columns) == rows


# --- the command ----------------------------------------------------------------------------------


def stability(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `stability inspect`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["stability", "inspect", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    # One wrong name of each kind; a width of nothing.
    "arguments",
    [
        ("nonesuch",),
        ("--target", "cuda:1"),
        ("--path", "nonesuch"),
        ("--columns", "0"),
    ],
)
def test_bad_input_exits_with_4(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """One clear sentence on standard error, nothing on standard output."""
    assert stability(monkeypatch, *arguments) == 4
    told = capfd.readouterr()
    assert told.err.startswith("stability: ")
    assert len(told.err.splitlines()) == 1
    assert not told.out


def test_json_is_one_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What --json prints parses, says what was asked, and a broken claim is exit code 1."""
    code = stability(
        monkeypatch,
        "--catalog", CATALOG, "--path", "sound", "--path", "refused", "--dtype", "fp32",
        "--columns", "4608", "--target", "cuda:90", "--no-traffic", "--json",
    )  # fmt: skip
    assert code == 1  # `refused` claims to run
    document = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
    assert document["asked"]["targets"] == ["cuda:90"]
    (kernel,) = document["kernels"]
    assert kernel["case"]["path"] == "sound"
    assert set(kernel["loads"]) == {"16"}
    assert len(document["failures"]) == 1
    assert not document["traffic"]


def test_the_table_fits_80_columns(found: Inspection) -> None:
    """The text form is readable in a terminal of 80 columns and shows what was found."""
    told = list(lines(found))
    assert max(map(len, told)) <= 80
    text = "\n".join(told)
    assert "forward moved 1.50 x the least" in text
    assert "x read 2.00x" in text
    assert "unsupported: planted: not here" in text
    assert "cuda:90: does not compile: " in text
