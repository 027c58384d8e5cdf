"""Records: one case as one line of strict JSON, and back."""

import json
import math

import pytest

from harness import Claim, Path, Verdict
from harness.case import Case
from harness.judge import Judgement
from harness.operation import ALL_CLAIMS, FINITE
from harness.record import Record, broken_claims, record_from_dict, stability_record

CASE = Case("cross_entropy", "triton", "bf16", "peak", 9984.0, (8, 32000), "backward")
JUDGEMENT = Judgement(
    Verdict.INACCURATE, True, "bf16", max_ulp=3.5, bad=2, elements=256000, first_bad=(0, 7)
)
CLAIMING = Path("triton", abs, claims=ALL_CLAIMS)
PLAIN = {
    "id": CASE.id,
    "suite": "stability",
    "operation": "cross_entropy",
    "path": "triton",
    "dtype": "bf16",
    "verdict": "ok",
    "regime": "peak",
    "magnitude": 9984.0,
    "pass": "backward",
}


def test_a_record_says_what_was_measured() -> None:
    """Every field of the contract is there, with the case's and the judgement's own numbers."""
    record = stability_record(CASE, JUDGEMENT, CLAIMING, seconds=0.25, refined=False)
    said = json.loads(record.to_json())
    assert said == said | PLAIN | {"verdict": "inaccurate"}
    assert said["shape"] == [8, 32000]
    assert (said["max_ulp"], said["bad"], said["elements"]) == (3.5, 2, 256000)
    assert (said["first_bad"], said["seconds"], said["returned"]) == ([0, 7], 0.25, "bf16")
    assert "refined" not in said


def test_a_record_reads_back() -> None:
    """Through JSON and back it is the same record, whose line is the same text."""
    record = stability_record(CASE, JUDGEMENT, CLAIMING, seconds=0.25, refined=True)
    back = record_from_dict(json.loads(record.to_json()))
    assert back.to_json() == record.to_json()
    assert back.verdict is Verdict.INACCURATE
    assert back["refined"] is True
    assert back.get("absent", 7) == 7


def test_what_is_absent_is_left_out() -> None:
    """A missing number is no key at all, rather than null."""
    fault = Judgement(Verdict.ERROR, True, reason="ValueError: no")
    said = json.loads(stability_record(CASE, fault, CLAIMING, seconds=1, refined=False).to_json())
    assert None not in said.values()
    assert not {"max_ulp", "first_bad", "returned", "refined"} & said.keys()
    assert said["reason"] == "ValueError: no"


# JSON has none of the three; a verdict and counts say what was not finite.
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_number_that_is_not_finite_is_never_written(value: float) -> None:
    """Writing it is an error, at the top and inside a list."""
    for data in ({"max_ulp": value}, {"shape": [1, value]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            Record(CASE.id, "stability", "op", "path", "fp32", Verdict.NAN, data).to_json()


# One defect each: no object, a field missing or of another type, a verdict nobody knows, numbers
# that are none or not finite, and axes without which no table has a place for the record.
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ([], "JSON object, not list"),
        (None, "JSON object, not NoneType"),
        ({key: PLAIN[key] for key in PLAIN if key != "dtype"}, "'dtype'"),
        (PLAIN | {"id": 7}, "'id'"),
        (PLAIN | {"verdict": "fine"}, "unknown verdict 'fine'"),
        (PLAIN | {"magnitude": "1"}, "'magnitude'"),
        (PLAIN | {"magnitude": True}, "'magnitude'"),
        (PLAIN | {"max_ulp": math.nan}, "'max_ulp'"),
        (PLAIN | {"seconds": math.inf}, "'seconds'"),
        (PLAIN | {"magnitude": None}, "'magnitude'"),
        (PLAIN | {"regime": None}, "regime"),
        (PLAIN | {"pass": "sideways"}, "pass"),
    ],
)
def test_a_damaged_record_is_refused(raw: object, says: str) -> None:
    """With a ValueError that names the field, which the store turns into a reported problem."""
    with pytest.raises(ValueError, match=says):
        record_from_dict(raw)


@pytest.mark.parametrize("verdict", list(Verdict), ids=lambda each: each.word)
def test_every_verdict_is_written_and_read(verdict: Verdict) -> None:
    """All of the enumeration, so that no run holds a word that its reader does not know."""
    assert record_from_dict(PLAIN | {"verdict": verdict.word}).verdict is verdict


def test_a_claim_is_broken_by_its_verdicts_alone() -> None:
    """Each path answers for what it claims; a path without claims is only recorded."""
    assert broken_claims(CLAIMING, Verdict.OK) == []
    assert broken_claims(CLAIMING, Verdict.UNREPRESENTABLE) == []
    assert FINITE in broken_claims(CLAIMING, Verdict.NAN)
    assert FINITE not in broken_claims(CLAIMING, Verdict.INACCURATE)
    assert all(
        broken_claims(CLAIMING, each)
        for each in set(Verdict) - {Verdict.OK, Verdict.UNREPRESENTABLE}
    )
    assert broken_claims(Path("naive", abs), Verdict.NAN) == []
    mine = Claim("never slow", frozenset({Verdict.TIMEOUT}))
    record = stability_record(
        CASE,
        Judgement(Verdict.TIMEOUT, True),
        Path("p", abs, claims=(mine,)),
        seconds=1,
        refined=False,
    )
    assert record["broken"] == ["never slow"]
    assert record["claimed"] is True
