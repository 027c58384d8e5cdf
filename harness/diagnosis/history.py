"""What the steps before looked like: loss, norms, the cost's inputs, rate and scale."""

import math
from collections import deque
from typing import Any

import torch

# Steps kept. Growth that leads to an overflow takes tens of steps; the report shows the last ones.
KEEP = 200
_SHOWN = 40


class History:
    """The last steps' numbers; one synchronisation a step."""

    def __init__(self) -> None:
        self.rows: deque[dict[str, Any]] = deque(maxlen=KEEP)
        self.first: dict[str, Any] | None = None

    def add(
        self,
        step: int,
        losses: list[torch.Tensor],
        parameters: list[torch.Tensor],
        watched: dict[str, Any],  # further tensors, of which the largest magnitude is kept
        settings: dict[str, float],  # rate, loss scale
    ) -> dict[str, Any]:
        """Measure one step, before its optimiser moves."""
        names: list[str] = []
        values: list[torch.Tensor] = []
        if losses:
            names.append("loss")
            values.append(sum(loss.detach().float().sum() for loss in losses))  # type: ignore[arg-type]
        gradients = [each.grad for each in parameters if _dense(each.grad)]
        for name, group in (("gradient_norm", gradients), ("weight_norm", parameters)):
            dense = [each.detach() for each in group if each is not None and _dense(each)]
            if dense:
                names.append(name)
                values.append(_norm(dense))
        for name, tensor in watched.items():
            if _dense(tensor) and tensor.numel():
                names.append(name)
                values.append(tensor.detach().float().abs().max())
        device = values[0].device if values else None
        stacked = [value.to(device, torch.float32) for value in values]
        numbers = torch.stack(stacked).tolist() if stacked else []
        row = {"step": step, **dict(zip(names, numbers, strict=True)), **settings}
        self.rows.append(row)
        if self.first is None:
            self.first = row
        return row

    def columns(self) -> dict[str, list[Any]]:
        """The last steps by column; None where a number is absent or not finite."""
        rows = list(self.rows)[-_SHOWN:]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [_plain(row.get(name)) for row in rows] for name in names}

    def growth(
        self,
        name: str,
        before: int | None = None,  # only rows of earlier steps than this
    ) -> float:
        """How many times its first value a number reached, by the last finite row."""
        rows = [row for row in self.rows if before is None or row["step"] < before]
        values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        if self.first is None or len(values) < 2:
            return 1.0
        start = abs(self.first.get(name, math.nan))
        if not math.isfinite(start):
            return 1.0
        return float(abs(values[-1]) / max(start, 1e-6))

    def rate(self, name: str) -> float | None:
        """Factor a step over the last steps, by a straight line through the logarithms."""
        pairs = [
            (row["step"], math.log(abs(row[name])))
            for row in list(self.rows)[-12:]
            if row.get(name) and math.isfinite(row[name])
        ]
        if len(pairs) < 3:
            return None
        middle = sum(x for x, _ in pairs) / len(pairs)
        level = sum(y for _, y in pairs) / len(pairs)
        spread = sum((x - middle) ** 2 for x, _ in pairs)
        if not spread:
            return None
        return math.exp(sum((x - middle) * (y - level) for x, y in pairs) / spread)


def _dense(tensor: Any) -> bool:
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
    )


def _norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    norms = torch._foreach_norm(tensors)
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([each.float() for each in norms]))
    return total


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
