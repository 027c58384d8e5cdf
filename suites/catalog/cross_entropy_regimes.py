"""How cross-entropy's inputs are laid out, with and without options."""

import numpy as np

from harness.operation import Draws, Regime
from suites.catalog import layouts
from suites.catalog.cross_entropy_truth import IGNORED


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.gaussian(draws), "target": layouts.columns(draws)}


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws)
    return {"input": layouts.one_entry(draws, where), "target": where}


def _draw_trough(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws)
    return {
        "input": layouts.one_entry(draws, where),
        "target": layouts.beside(where, draws.shape[1]),
    }


def _draw_constant(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.ones(draws.shape), "target": layouts.columns(draws)}


def _draw_offset(draws: Draws) -> dict[str, np.ndarray]:
    crowd = layouts.WEAK * layouts.gaussian(draws)
    return {"input": 1.0 + crowd, "target": layouts.columns(draws)}


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.outlier(draws), "target": layouts.columns(draws)}


def _draw_confident(draws: Draws) -> dict[str, np.ndarray]:
    crowd = -np.abs(layouts.gaussian(draws))
    where = layouts.columns(draws)
    crowd[np.arange(len(where)), where] = 1.0
    return {"input": crowd, "target": where}


def _draw_masked(draws: Draws) -> dict[str, np.ndarray]:
    # Row 0 hides its first half and row 1 its second, with the target in the other half, so that
    # whole first and last blocks are masked; the others hide half their entries at random. Targets
    # stay visible.
    rows, width = draws.shape
    half = width // 2
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    hidden = draws.generator("mask").random(draws.shape) < 0.5
    hidden[0] = np.arange(width) < half
    hidden[1] = np.arange(width) >= half
    where[0], where[1] = half + where[0] % half, where[1] % half
    hidden[np.arange(rows), where] = False
    base[hidden] = -np.inf
    return {"input": base, "target": where}


def _draw_masked_blocks(draws: Draws) -> dict[str, np.ndarray]:
    width = draws.shape[1]
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    hidden = 70_000  # more than the 65,536 columns that any kernel takes at once
    base[0, :hidden] = -np.inf
    base[1, width - hidden :] = -np.inf
    where[0] = hidden + where[0] % (width - hidden)
    where[1] = where[1] % (width - hidden)
    return {"input": base, "target": where}


def _draw_nonfinite(draws: Draws) -> dict[str, np.ndarray]:
    # What a broken layer hands on: a NaN, a +inf, a masked target, a row that is masked whole.
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    base[0, layouts.beside(where, draws.shape[1])[0]] = np.nan
    base[1, layouts.beside(where, draws.shape[1])[1]] = np.inf
    base[2, where[2]] = -np.inf
    base[3] = -np.inf
    return {"input": base, "target": where}


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.zeros(draws.shape), "target": layouts.columns(draws)}


def _draw_subnormal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.uniform(draws), "target": layouts.columns(draws)}


def _draw_all_ignored(draws: Draws) -> dict[str, np.ndarray]:
    ignored = np.full(draws.shape[0], IGNORED, dtype=np.int64)
    return {"input": layouts.gaussian(draws), "target": ignored}


def _draw_weighted(draws: Draws) -> dict[str, np.ndarray]:
    weight = draws.generator("weight").uniform(0.25, 4.0, size=draws.shape[1])
    return {"input": layouts.gaussian(draws), "target": layouts.columns(draws), "weight": weight}


def _draw_weighted_masked(draws: Draws) -> dict[str, np.ndarray]:
    # Class 0 weighs nothing and is masked in every row, though it is the first row's target.
    roles = _draw_weighted(draws)
    roles["weight"][0] = 0.0
    roles["input"][:, 0] = -np.inf
    roles["target"][0] = 0
    roles["target"][1:] = 1 + roles["target"][1:] % (draws.shape[1] - 1)
    return roles


def _draw_soft(draws: Draws) -> dict[str, np.ndarray]:
    logits = 2.0 * draws.generator("target").standard_normal(draws.shape)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {"input": layouts.gaussian(draws), "target": powers / powers.sum(axis=1, keepdims=True)}


def _draw_onehot(draws: Draws) -> dict[str, np.ndarray]:
    roles = _draw_confident(draws)
    return roles | {"target": layouts.one_entry(draws, roles["target"])}


def _draw_soft_masked(draws: Draws) -> dict[str, np.ndarray]:
    roles = _draw_soft(draws)
    hidden = draws.generator("mask").random(draws.shape) < 0.5
    hidden[:, 0] = False
    roles["input"][hidden] = -np.inf
    roles["target"][hidden] = 0.0
    return roles


REGIMES = (
    Regime("normal", "Gaussian logits, random targets", _draw_normal),
    Regime("peak", "one entry at the magnitude, zeros elsewhere; the target is it", _draw_peak),
    Regime("trough", "the same; the target is one of the zeros", _draw_trough),
    Regime("constant", "every logit at the magnitude", _draw_constant),
    Regime("offset", "a common offset, differences 2**-10 of it", _draw_offset),
    Regime("outlier", "a weak crowd and one entry 2**10 times larger", _draw_outlier),
    Regime(
        "confident", "the target far above the rest: its probability tends to 1", _draw_confident
    ),
    Regime("masked", "half of each row at -inf, whole blocks among them", _draw_masked),
    Regime(
        "masked_blocks",
        "70,000 of 131,072 columns at -inf: the first ones, and the last ones",
        _draw_masked_blocks,
        layouts.only_one,
        shape=(2, 131_072),
    ),
    Regime(
        "nonfinite",
        "rows with NaN, +inf, a masked target, nothing but masks: none may be swallowed or spread",
        _draw_nonfinite,
        layouts.only_one,
    ),
    Regime("zeros", "every logit zero", _draw_zeros, layouts.no_magnitude),
    Regime(
        "subnormal",
        "logits of at most the smallest normal",
        _draw_subnormal,
        layouts.subnormal_range,
    ),
    Regime("all_ignored", "every target is ignore_index", _draw_all_ignored),
    # Options: few layouts each, those that the option makes hard.
    Regime("weighted", "Gaussian logits, class weights", _draw_weighted, shared=("weight",)),
    Regime(
        "weighted_masked",
        "the same; a class of weight 0 is masked, as are other rows' targets' neighbours",
        _draw_weighted_masked,
        shared=("weight",),
    ),
    Regime("smoothed", "Gaussian logits", _draw_normal, options={"label_smoothing": 0.1}),
    Regime(
        "smoothed_confident",
        "the target far above the rest",
        _draw_confident,
        options={"label_smoothing": 0.1},
    ),
    Regime(
        "smoothed_outlier",
        "a crowd and one outlier",
        _draw_outlier,
        options={"label_smoothing": 0.1},
    ),
    Regime(
        "probabilities",
        "Gaussian logits, probabilities over all classes",
        _draw_soft,
        layouts.below_the_last_binades,
        extension=True,
    ),
    Regime(
        "probabilities_onehot",
        "confident rows, one probability of 1",
        _draw_onehot,
        extension=True,
    ),
    Regime(
        "probabilities_masked",
        "half of each row at -inf, where the probabilities are 0",
        _draw_soft_masked,
        layouts.below_the_last_binades,
        extension=True,
    ),
    Regime("z_loss", "Gaussian logits", _draw_normal, options={"z_loss": 1e-4}),
    Regime("softcap", "Gaussian logits, capped at 30", _draw_normal, options={"softcap": 30.0}),
    Regime(
        "everything",
        "class weights, smoothing, z-loss and softcap together",
        _draw_weighted,
        options={"label_smoothing": 0.1, "z_loss": 1e-4, "softcap": 30.0},
        shared=("weight",),
    ),
)
