"""Several parts of one run made into that run: shards of a CI matrix, of a batch scheduler.

Records are copied one by one; what is kept of each is eight bytes, to see that no case comes twice.
"""

import json
import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import InputError
from harness.merge_heads import Part, describe_part, merged_head, place_of
from harness.reading import read_environment, stream_records
from harness.run_files import write_whole
from harness.store import prepare_directory
from harness.strict_json import parse


@dataclass(frozen=True, slots=True)
class Merged:
    """What `merge_runs` did."""

    directory: Path
    records: int
    complete: bool
    lacking: tuple[str, ...]  # why it is not complete


def merge_runs(directories: Sequence[Path], out: Path, *, partial: bool = False) -> Merged:
    """Write the run that the parts are of to `out`, whole or not at all.

    Raises:
        InputError: if the parts are not of one run, a shard is missing or given twice, two hold
            the same case, one is damaged or not complete (`partial` takes such parts, and what is
            there; the result is then not complete), or `out` cannot be written.
    """
    if not directories:
        raise InputError("nothing to merge; name the run directories of the parts")
    parts = [Part(each, read_environment(each)) for each in directories]
    head, lacking = merged_head(parts)
    if lacking and not partial:
        raise InputError(f"{lacking[0]}; or merge what is there with --partial")
    prepare_directory(out, resume=False)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name[:60]}.", dir=out.parent))
        try:
            told, damage = _copy(parts, draft / "records.jsonl")
            if damage and not partial:
                raise InputError(
                    f"{damage[0]}; measure it again with stability run --resume, or merge what can"
                    " be read with --partial"
                )
            lacking = [*lacking, *damage]
            counts = [each.records for each in told]
            content = head | {
                "argv": ["stability", *sys.argv[1:]],
                "parts": [describe_part(part, n) for part, n in zip(parts, counts, strict=True)],
                "complete": not lacking,
            }
            write_whole(draft / "run.json", content)
            draft.chmod(0o777 & ~_umask())  # mkdtemp's is private
            draft.replace(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror or error}; name a writable directory with -o"
        ) from None
    return Merged(out, sum(counts), not lacking, tuple(lacking))


@dataclass(slots=True)
class _Copied:
    """What was copied of one part."""

    first: int  # its first line in the merged file, counted from 0
    records: int


def _copy(parts: Sequence[Part], path: Path) -> tuple[list[_Copied], list[str]]:
    """All records one after the other; how many each part gave, and what could not be read."""
    hashes = array("q")
    copied: list[_Copied] = []
    damage: list[str] = []
    places = [place_of(part) for part in parts]
    several = any(place != places[0] for place in places)
    with path.open("w", encoding="utf-8") as stream:
        for part, place in zip(parts, places, strict=True):
            problems: list[str] = []
            first = len(hashes)
            for record in stream_records(part.directory, problems):
                # Python's own hash: keyed anew in each process, so that nobody can aim at it.
                hashes.append(hash(record.id))
                plain = record.to_dict() | (place if several else {})
                stream.write(json.dumps(plain, allow_nan=False) + "\n")
            copied.append(_Copied(first, len(hashes) - first))
            damage += [f"{part.directory} is damaged ({each})" for each in problems]
    _check_once(hashes, copied, parts, path)
    return copied, damage


def _check_once(
    hashes: "array[int]", copied: list[_Copied], parts: Sequence[Part], path: Path
) -> None:
    """No case may come from two parts; of one that a part measured again the later line counts."""
    import numpy as np

    every = np.frombuffer(hashes, dtype=np.int64) if hashes else np.zeros(0, np.int64)
    order = np.argsort(every, kind="stable")
    alike = np.flatnonzero(every[order][1:] == every[order][:-1])
    if not alike.size:
        return
    superseded = set[int]()
    ids = _ids_at(path, {int(order[k + side]) for k in alike for side in (0, 1)})
    owner = np.searchsorted([each.first for each in copied], np.arange(len(every)), side="right")
    for k in alike:
        earlier, later = int(order[k]), int(order[k + 1])
        if ids[earlier] != ids[later]:
            continue  # two ids of one hash
        if owner[earlier] != owner[later]:
            one, other = (parts[owner[each] - 1].directory for each in (earlier, later))
            raise InputError(
                f"{one} and {other} both measured {ids[earlier]}; give each part once, and leave"
                " out a run that covers another"
            )
        superseded.add(earlier)
        copied[owner[earlier] - 1].records -= 1
    _drop_lines(path, superseded)


def _ids_at(path: Path, wanted: set[int]) -> dict[int, str]:
    with path.open("rb") as stream:
        return {n: parse(line.decode())["id"] for n, line in enumerate(stream) if n in wanted}


def _drop_lines(path: Path, dropped: set[int]) -> None:
    if not dropped:
        return
    kept = path.with_suffix(".kept")
    with path.open("rb") as stream, kept.open("wb") as out:
        _write_others(stream, out, dropped)
    kept.replace(path)


def _write_others(stream: IO[bytes], out: IO[bytes], dropped: set[int]) -> None:
    out.writelines(line for number, line in enumerate(stream) if number not in dropped)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def told(merged: Merged) -> Iterator[str]:
    """What came of it, in lines for people."""
    yield f"{merged.directory}: {merged.records} cases, {'' if merged.complete else 'not '}complete"
    for each in merged.lacking:
        yield f"  {each}"
    if not merged.complete:
        yield f"  measure what is left: stability run --resume --out {merged.directory}"
