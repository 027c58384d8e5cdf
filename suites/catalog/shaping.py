"""The launch shapes of this catalog's kernels, for `stability inspect` and `stability tune`."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from kernels import launch, launch_table
from kernels.launch_table import Entry, Shape


@contextlib.contextmanager
def shaped_as(device: str) -> Iterator[None]:
    """Within this context kernels are launched as on `cuda:90` or `hip:gfx942`, peers' too."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(launch.shaped_as(device))
        _shape_liger(stack, device)
        yield


def _shape_liger(stack: contextlib.ExitStack, device: str) -> None:
    """Liger asks torch which GPU is there, and chooses its number of warps by the answer."""
    try:
        from liger_kernel.ops import cross_entropy
    except ImportError:
        return
    backend, _, arch = device.partition(":")
    names = {"80": "ampere", "90": "hopper", "100": "blackwell"}
    answers = {
        "is_hip": lambda: backend == "hip",
        "infer_device_arch": lambda *_: names.get(arch, arch),
    }
    for name, answer in answers.items():
        if hasattr(cross_entropy, name):
            stack.enter_context(mock.patch.object(cross_entropy, name, answer))


class LaunchShapes:
    """What `stability tune` chooses: the table of launch shapes of `kernels`.

    A question is what a launch asks the table: (family, dtype, device, columns).
    """

    Question = tuple[str, str, str, int]

    def asked(self) -> contextlib.AbstractContextManager[list[Question]]:
        """List the questions of the launches within this context."""
        return launch_table.asked()

    def candidates(self, question: Question) -> list[Shape]:
        """The shapes worth timing: today's first, then from the simplest, most common, outwards.

        Tiles of 1,024 to 16,384 elements: fewer leave warps without work, more do not fit in the
        registers of 1,024 threads. At least 16 bytes a thread, at most 32 elements.
        """
        _, dtype, _, columns = question
        least = {"fp64": 2, "fp32": 4}.get(dtype, 8)
        today = launch_table.lookup(*question)
        grid = [
            Shape(tile, per_thread, on_chip)
            for on_chip in dict.fromkeys((today.on_chip, 0, 16384, 32768))
            for tile in (4096, 2048, 8192, 1024, 16384)
            for per_thread in (16, 8, 4, 32, 2)
            if least <= per_thread <= tile // 32
        ]
        # Where a row is held whole the limit alone matters, and no limit below the row differs.
        seen: dict[Any, Shape] = {}
        for shape in (today, *grid):
            whole = columns <= shape.on_chip // (2 if dtype == "fp64" else 1)
            seen.setdefault((shape.tile, shape.per_thread, whole), shape)
        return list(seen.values())

    def using(
        self, question: Question, candidate: Shape
    ) -> contextlib.AbstractContextManager[None]:
        """Within this context the table answers a question with a candidate."""
        family, dtype, device, _ = question
        return launch_table.using(Entry(candidate, family, dtype, device))

    def save(self, chosen: Mapping[Question, Shape], about: Mapping[str, Any]) -> Path:
        """Write the user's table, in which only what was not measured again stays as it was.

        A shape holds for rows up to the width that it was measured at; the widest one's for all.
        """
        file = launch_table.user_file()
        entries: list[Entry] = []
        groups: dict[tuple[str, str, str], list[tuple[int, Shape]]] = {}
        for (family, dtype, device, columns), shape in chosen.items():
            groups.setdefault((family, dtype, device), []).append((columns, shape))
        for names, measured in groups.items():
            for columns, shape in sorted(measured, key=lambda each: each[0])[:-1]:
                entries.append(Entry(shape, *names, up_to=columns))
            entries.append(Entry(max(measured, key=lambda each: each[0])[1], *names))
        try:
            kept = launch_table.parse(file.read_text())
        except (OSError, ValueError):
            kept = ()
        entries += [each for each in kept if (each.family, each.dtype, each.device) not in groups]
        launch_table.write(file, launch_table.render(entries, **about))
        return file
