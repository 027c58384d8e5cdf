"""The slices: which settings answer which question, a few lines of data each.

Rates are two a decade: where runs break is a power law or a cliff, both visible at that density,
and the refinement finds the edge itself.
"""

from harness.training.declare import Slice
from harness.training.setting import Setting
from suites.training.workloads import WIDTHS

_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def _settings(workload: str, paths: str, precisions: str, **axes: str) -> tuple[Setting, ...]:
    """Every path with every precision, both given as words."""
    return tuple(
        Setting(workload, path, precision, **axes)  # type: ignore[arg-type]
        for precision in precisions.split()
        for path in paths.split()
    )


# The thread's own question: falls nicely, then NaN, and a smaller rate only delays it. Logistic
# regression saturates its sigmoid in fp32 after a thousand steps at 0.1; a perceptron in fp16 takes
# two hundred. The stable paths beside them go on.
_CLOCK = (
    Slice(
        "clock",
        _settings("digits_relu", "naive torch", "fp16"),
        (0.1, 0.3, 1.0),
        seeds=2,
        steps=250,
        level="quick",
        dense=True,
    ),
    Slice(
        "clock",
        _settings("cancer_logistic", "naive torch", "fp32"),
        (0.1, 0.3, 1.0),
        seeds=3,
        steps=1500,
        dense=True,
    ),
    Slice(
        "clock",
        _settings("digits_relu", "naive clamped epsilon torch stable", "fp16"),
        (0.03, 0.1, 0.3, 1.0, 3.0),
        seeds=3,
        refine=2,
    ),
    Slice("clock", _settings("digits_conv", "naive torch", "fp16"), (0.1, 0.3, 1.0), seeds=2),
)

# A decoder over 12,000 words. In fp16 the naive cost breaks at the rate at which torch's learns
# best; with either cost a rate of 3 is too high. The last goes far enough to see the clock.
_LANGUAGE_RATES = (0.1, 0.3, 1.0, 3.0)
_LANGUAGE = (
    Slice(
        "language",
        _settings("words", "naive softmax_log clamped torch", "fp16", normalization="layer"),
        (0.03, *_LANGUAGE_RATES),
        seeds=2,
        dense=True,
        widen=True,
    ),
    Slice(
        "language",
        (
            *_settings("words", "naive torch", "fp32 bf16", normalization="layer"),
            *_settings("words", "naive torch", "autocast_fp16", normalization="layer"),
            *_settings("words", "naive torch", "autocast_bf16", normalization="layer"),
            *_settings("words", "torch", "fp32", normalization="rms"),
            *_settings("words", "naive torch", "fp32"),
        ),
        _LANGUAGE_RATES,
        seeds=2,
    ),
    Slice(
        "language",
        _settings("words", "naive torch", "fp32", normalization="layer",
                  optimizer="adam", schedule="warmup_cosine"),
        (0.003, 0.01, 0.03, 0.1),
        seeds=2,
    ),
    Slice(
        "language",
        _settings("words", "naive torch", "fp16", normalization="layer"),
        (0.03, 0.1, 0.3),
        seeds=3,
        steps=400,
        level="full",
        dense=True,
    ),
)  # fmt: skip

# Which precision, cost, norm and start stand which rates. fp64 and bf16 with one path fewer: their
# range is fp32's or more.
_SENSITIVITY = (
    Slice(
        "sensitivity",
        (
            *_settings("digits_mlp", "naive torch", "fp16 fp32"),
            *_settings("digits_relu", "naive torch", "fp16 bf16 fp32"),
            *_settings("digits_relu", "torch", "fp64"),
            *_settings("digits_relu", "naive torch", "autocast_fp16"),
            *_settings("digits_relu", "naive", "autocast_bf16"),
        ),
        _RATES,
        seeds=2,
        refine=2,
        widen=True,
    ),
    Slice(
        "sensitivity",
        tuple(
            each
            for name in ("input_batch", "batch", "layer", "rms")
            for each in _settings("digits_relu", "naive torch", "fp16 fp32", normalization=name)
        ),
        _RATES,
        seeds=2,
        widen=True,
    ),
    Slice(
        "sensitivity",
        tuple(
            each
            for name in ("xavier", "he", "too_large", "too_small")
            for each in _settings("digits_relu", "naive torch", "fp16 fp32", initialization=name)
        ),
        _RATES,
        seeds=2,
        widen=True,
    ),
    Slice(
        "sensitivity",
        tuple(
            Setting("digits_relu", "naive", "fp32", schedule=name)
            for name in ("step", "plateau", "warmup_cosine")
        ),
        _RATES,
        seeds=2,
    ),
    Slice(
        "sensitivity",
        tuple(
            Setting("digits_relu", "naive", "fp32", optimizer=name)
            for name in ("momentum", "adam", "adamw")
        ),
        (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        seeds=2,
    ),
    # NVIDIA GPUs only; elsewhere its record says so.
    Slice("sensitivity", _settings("digits_relu", "torch", "tf32"), _RATES, seeds=2),
)

# The other workloads, each where its naive cost is in trouble.
_WORKLOADS = (
    Slice(
        "workloads",
        (
            *_settings("cancer_raw_logistic", "naive torch", "fp32"),
            *_settings("cancer_raw_mlp", "naive torch", "fp32"),
            *_settings("cancer_mlp", "naive torch_bce torch", "fp32"),
        ),
        (0.01, 0.1, 1.0, 10.0, 100.0),
        seeds=2,
    ),
    Slice(
        "workloads",
        (
            *_settings("digits_metric", "naive epsilon torch stable", "fp16"),
            *_settings("digits_metric", "naive stable", "fp32"),
        ),
        (0.03, 0.1, 0.3, 1.0),
        seeds=2,
    ),
)

# The kernels themselves, in the interpreter where there is no GPU: a few steps.
_KERNELS = Slice(
    "kernels",
    (
        *_settings("digits_relu", "triton stable", "fp16"),
        *_settings("cancer_logistic", "triton", "fp32"),
    ),
    (0.1,),
    seeds=1,
    steps=20,
)

# FastNorm beside weight normalisation and none, runs one after another: its stable rate and the
# spread over seeds; the drift of its norms; and, on layers twice as wide each, the norm's own time.
_NORMS = tuple(
    Setting("digits_relu", "torch", "fp32", normalization=name)
    for name in ("none", "weight", "fastnorm")
)
_FASTNORM = (
    Slice("fastnorm", _NORMS, (0.1, 1.0), seeds=3, steps=60),
    Slice("fastnorm", _NORMS, (0.03, *_RATES[2:]), seeds=10, steps=150, level="full"),
    Slice(
        "fastnorm",
        tuple(
            Setting("digits_relu", "torch", precision, normalization=name)
            for precision in ("fp64", "fp32", "fp16", "bf16")
            for name in ("fastnorm_10", "fastnorm_100", "fastnorm_never")
        ),
        (0.1,),
        seeds=1,
        steps=300,
        level="full",
    ),
    Slice(
        "fastnorm",
        tuple(
            Setting(f"digits_wide_{width}", "torch", "fp32", normalization=name)
            for width in WIDTHS
            for name in ("weight", "fastnorm")
        ),
        (0.01,),
        seeds=1,
        steps=12,
    ),
)

SLICES = (*_CLOCK, *_LANGUAGE, *_SENSITIVITY, *_WORKLOADS, _KERNELS, *_FASTNORM)
