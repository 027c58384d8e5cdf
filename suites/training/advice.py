"""The advice that people give for a cost that turns NaN, each piece as paired runs.

A control is in the trouble that the advice is for, at the rates of the trial; the treatment follows
the advice and changes nothing else. Five seeds, or more where only some of them break.
"""

from dataclasses import replace

from harness.training.declare import Advice, Level, Trial
from harness.training.setting import Setting

# Controls, with the rates at which each goes wrong. In half precision a perceptron's naive cost
# breaks late, and the later the smaller the rate; in fp32 a logistic regression's does.
_HALF = Setting("digits_relu", "naive", "fp16")
_HALF_RATES = (0.1, 0.3, 1.0)
_HALF_STEPS = 400
_LOGISTIC = Setting("cancer_logistic", "naive", "fp32")
_LOGISTIC_RATES = (0.3, 1.0)
_LOGISTIC_STEPS = 600
# At these rates the perceptron diverges, in whatever precision: a cliff.
_STEEP = Setting("digits_relu", "naive", "fp32")
_STEEP_RATES = (3.0, 10.0)
_CONV = Setting("digits_conv", "naive", "fp16")
_CONV_RATES = (0.3, 1.0)
_CONV_STEPS = 100
# Raw features of up to 4254: the first forward pass is out of range already.
_RAW = Setting("cancer_raw_logistic", "naive", "fp32")
_RAW_RATES = (0.01, 0.1)
_RAW_STEPS = 100
# One embedding in some thirty is all zero before the first step: 0 / 0.
_ZERO = Setting("digits_metric", "naive", "fp32")
_ZERO_RATES = (0.03, 0.1, 0.3)
_LARGE = Setting("digits_relu", "naive", "fp32", initialization="too_large")
# At these rates torch's cost learns, and exp of a logit is beyond fp16 after some ten steps.
_WORDS = Setting("words", "naive", "fp16", normalization="layer")
_WORDS_RATES = (0.1, 0.3)
_WORDS_STEPS = 60
# Sigmoids saturated by features of up to 4254: finite, and nothing is learnt.
_RAW_MLP = Setting("cancer_raw_mlp", "naive", "fp32")


# Where only some seeds break, more of them are needed to tell: lanes cost little.
_SEEDS = {"digits_metric": 12, "digits_relu/fp32": 10}
_FEWEST = 5


def _seeds(control: Setting, **changed: str | float) -> int:
    if changed.get("normalization") == "fastnorm":  # runs one after another
        return _FEWEST
    pair = f"{control.workload}/{control.precision}"
    return _SEEDS.get(pair, _SEEDS.get(control.workload, _FEWEST))


def _trials(
    *controls: tuple[Setting, tuple[float, ...], int], rate_factor: float = 1.0,
    steps_factor: int = 1, level: Level = "full", **changed: str | float,
) -> tuple[Trial, ...]:  # fmt: skip
    """One trial a control: the treatment is the control with some axes changed."""
    return tuple(
        Trial(
            control,
            replace(control, **changed),  # type: ignore[arg-type]
            rates,
            steps,
            rate_factor=rate_factor,
            steps_factor=steps_factor,
            seeds=_seeds(control, **changed),
            level=level,
        )
        for control, rates, steps in controls
    )


_HALVES = (_HALF, _HALF_RATES, _HALF_STEPS)
_LOGISTICS = (_LOGISTIC, _LOGISTIC_RATES, _LOGISTIC_STEPS)
_STEEPS = (_STEEP, _STEEP_RATES, _HALF_STEPS)
_CONVS = (_CONV, _CONV_RATES, _CONV_STEPS)
_RAWS = (_RAW, _RAW_RATES, _RAW_STEPS)
_ZEROS = (_ZERO, _ZERO_RATES, 200)
_HALF_ZEROS = (replace(_ZERO, precision="fp16"), _ZERO_RATES, 200)
_LARGES = (_LARGE, (0.03, 0.1), _HALF_STEPS)
_WIDES = (Setting("digits_wide_2048", "naive", "fp32"), _STEEP_RATES, _HALF_STEPS)
_TEXT = (_WORDS, _WORDS_RATES, _WORDS_STEPS)

ADVICE = (
    Advice(
        "lower the rate",
        "Decrease the learning rate, especially if you are getting NaNs in the first 100"
        " iterations",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _RAWS, _TEXT, rate_factor=0.1, steps_factor=10),
    ),
    Advice(
        "decay it stepwise",
        "Usual practice is to reduce the learning rate in step manner after every few iterations",
        (
            *_trials(_HALVES, _LOGISTICS, _STEEPS, _TEXT, schedule="step"),
            # The decayed rates add up to 0.285 of the way; four times the steps make up for it.
            *_trials(_HALVES, _LOGISTICS, _STEEPS, steps_factor=4, schedule="step"),
        ),
    ),
    Advice(
        "an adaptive rate",
        "Or you just have to have an adaptive learning rate",
        (
            *_trials(_HALVES, _LOGISTICS, _STEEPS, rate_factor=0.01, optimizer="adam"),
            *_trials(_HALVES, _LOGISTICS, _STEEPS, _TEXT, schedule="plateau"),
        ),
    ),
    Advice(
        "cap values below at 1e-9",
        "Use X = np.log(np.max(x, 1e-9))",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _RAWS, _TEXT, path="clamped"),
    ),
    Advice(
        "use float64",
        "Increase the precision of your model (using 64-bit floats instead of 32 bit floats)",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _RAWS, _TEXT, precision="fp64"),
    ),
    Advice(
        "add epsilon to x/‖x‖",
        "You can add a small epsilon to make these ops more stable",
        _trials(_ZEROS, _HALF_ZEROS, path="epsilon"),
    ),
    Advice(
        "a safe norm",
        "(ours) x/‖x‖ scaled by a power of two first, as kernels.normalize does",
        _trials(_ZEROS, _HALF_ZEROS, path="stable"),
    ),
    Advice(
        "batch-normalise the input",
        "Introducing batch normalization at the input layer solved the problem for me",
        _trials(_HALVES, _LOGISTICS, _RAWS, _CONVS, normalization="input_batch"),
    ),
    Advice(
        "standardise the data",
        "You may have to change the scaling of the input data",
        (
            *_trials(_RAWS, workload="cancer_logistic"),
            *_trials((_RAW_MLP, (0.1, 1.0), 300), workload="cancer_mlp"),
        ),
    ),
    Advice(
        "Xavier initialisation",
        "If unsure, use Xavier or He initialization",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _LARGES, initialization="xavier"),
    ),
    Advice(
        "He initialisation",
        "If unsure, use Xavier or He initialization",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _LARGES, initialization="he"),
    ),
    Advice(
        "clip the gradient",
        "Gradient blow up",
        _trials(_HALVES, _LOGISTICS, _STEEPS, _RAWS, _TEXT, clip=1.0),
    ),
    Advice(
        "find a softmax that is applied twice",
        "Check if the last layer is a softmax after modifying somebody's code",
        (
            Trial(
                Setting("digits_relu", "doubled", "fp32"),
                Setting("digits_relu", "torch", "fp32"),
                (0.03, 0.1, 0.3),
                _HALF_STEPS,
            ),
        ),
    ),
    Advice(
        "find a softmax that is missing",
        "Check if the last layer is a softmax after modifying somebody's code",
        (
            Trial(
                Setting("digits_relu", "missing", "fp32"),
                Setting("digits_relu", "naive", "fp32"),
                (0.03, 0.1, 0.3),
                _HALF_STEPS,
            ),
        ),
    ),
    Advice(
        "a stable fused cost",
        "Numerical instability in the framework: (ours) take the cost from the logits",
        (
            *_trials(_HALVES, _LOGISTICS, _STEEPS, _RAWS, _CONVS, _TEXT, path="torch"),
            *_trials(_HALVES, path="stable"),
            # Whole trainings by the Triton kernel, which the interpreter takes hours for.
            *_trials(_HALVES, _LOGISTICS, _CONVS, _TEXT, path="triton", level="gpu"),
        ),
    ),
    Advice(
        "FastNorm",
        "FastNorm improves numerical stability and reduces accuracy variance enabling higher"
        " learning rate",
        (
            *_trials(_STEEPS, normalization="fastnorm"),
            *_trials(
                (replace(_STEEP, normalization="weight"), _STEEP_RATES, _HALF_STEPS),
                normalization="fastnorm",
            ),
            *_trials(_WIDES, normalization="fastnorm", level="gpu"),
        ),
    ),
)
