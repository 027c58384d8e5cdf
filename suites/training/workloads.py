"""The workloads, each stated as in a paper: model, data, split, optimiser, steps.

Data are split once, four fifths to train; a seed decides initial parameters and the order of
samples. Losses are of at most 1024 training samples, metrics of the test set. Unless a slice says
otherwise the optimiser is plain SGD at a constant rate.
"""

from torch import nn

from harness.training.workload import Workload
from suites.training import costs, data, fastnorm, models


def _binary(name: str, statement: str, *, hidden: tuple[int, ...], standardised: bool) -> Workload:
    return Workload(
        name,
        statement,
        lambda: data.breast_cancer(standardised=standardised),
        lambda normalization: models.perceptron((30, *hidden, 1), nn.Sigmoid, normalization),
        "binary_cross_entropy",
        costs.BINARY_CROSS_ENTROPY,
        costs.BINARY_CROSS_ENTROPY["torch"],
        costs.right_side,
        batch_size=64,
        steps=300,
        normalizations=models.NORMALIZATIONS,
        modules=models.MODULES,
        prepare=fastnorm.prepare,
        absent=costs.absent,
        context=costs.context,
    )


def _digits(name: str, statement: str, activation: type[nn.Module], width: int = 64) -> Workload:
    return Workload(
        name,
        statement,
        lambda: data.digits(images=False),
        lambda normalization: models.perceptron((64, width, width, 10), activation, normalization),
        "cross_entropy",
        costs.CROSS_ENTROPY,
        costs.CROSS_ENTROPY["torch"],
        costs.right_class,
        batch_size=64,
        steps=400,
        normalizations=models.NORMALIZATIONS,
        modules=models.MODULES,
        prepare=fastnorm.prepare,
        absent=costs.absent,
        context=costs.context,
    )


WIDTHS = (256, 512, 1024, 2048)  # each twice the last: O(n) doubles, O(n²) quadruples

WORKLOADS = (
    _binary(
        "cancer_raw_logistic",
        "Logistic regression on the 30 raw breast-cancer features, batches of 64, 300 steps.",
        hidden=(),
        standardised=False,
    ),
    _binary(
        "cancer_logistic",
        "The same on features standardised by the training set's mean and deviation.",
        hidden=(),
        standardised=True,
    ),
    _binary(
        "cancer_raw_mlp",
        "30-32-32-1 perceptron with sigmoids on the raw features, batches of 64, 300 steps.",
        hidden=(32, 32),
        standardised=False,
    ),
    _binary(
        "cancer_mlp",
        "The same on standardised features.",
        hidden=(32, 32),
        standardised=True,
    ),
    _digits(
        "digits_mlp",
        "64-64-64-10 perceptron with sigmoids on 8 x 8 digits, batches of 64, 400 steps.",
        nn.Sigmoid,
    ),
    _digits(
        "digits_relu",
        "64-64-64-10 perceptron with ReLU on 8 x 8 digits, batches of 64, 400 steps.",
        nn.ReLU,
    ),
    Workload(
        "digits_conv",
        "Two 3 x 3 convolutions (8 and 16 channels, ReLU) and a linear layer on 8 x 8 digits,"
        " batches of 64, 150 steps.",
        lambda: data.digits(images=True),
        models.convolutional,
        "cross_entropy",
        costs.CROSS_ENTROPY,
        costs.CROSS_ENTROPY["torch"],
        costs.right_class,
        batch_size=64,
        steps=150,
        normalizations=("none", "input_batch", "batch", "layer"),
        absent=costs.absent,
        context=costs.context,
    ),
    Workload(
        "words",
        "Decoder of two blocks (width 64, two heads) on 32-token windows of Python's standard"
        " library, 12,000 words, batches of 4 windows, 60 steps.",
        data.standard_library,
        lambda normalization: models.Transformer(data.VOCABULARY, data.CONTEXT, normalization),
        "cross_entropy",
        costs.CROSS_ENTROPY,
        costs.CROSS_ENTROPY["torch"],
        costs.right_class,
        batch_size=4,
        steps=60,
        normalizations=("none", "layer", "rms"),
        absent=costs.absent,
        context=costs.context,
        most_lanes=4,  # the logits of a lane are 12 MB, several times over
        evaluation_rows=8,
    ),
    Workload(
        "digits_metric",
        "64-32-5 perceptron with ReLU and no biases, the ReLU also on the embedding x, which is so"
        " all zero for some samples; the cosines of x / ||x|| with the ten sums of two of the five"
        " axes, times 16, are the logits. Batches of 64, 300 steps.",
        lambda: data.digits(images=False),
        lambda normalization: models.perceptron((64, 32, 5), nn.ReLU, normalization, embeds=True),
        "normalize",
        costs.NORMALIZE,
        costs.stable_direction,
        costs.right_axis,
        batch_size=64,
        steps=300,
        normalizations=("none", "input_batch", "batch", "layer", "rms"),
        absent=costs.absent,
        context=costs.context,
    ),
    # For the norms' own time, where one weight outgrows all else: see suites/training/fastnorm.py.
    *(
        _digits(
            f"digits_wide_{width}",
            f"64-{width}-{width}-10 perceptron with ReLU on 8 x 8 digits, batches of 64.",
            nn.ReLU,
            width,
        )
        for width in WIDTHS
    ),
)
