"""The data: shipped inside scikit-learn, or Python's own standard library read as text."""

import collections
import functools
import re
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.training.workload import Data

_TEST_SHARE = 0.2


def breast_cancer(*, standardised: bool) -> Data:
    """569 samples of 30 features, benign or malignant (Wisconsin diagnostic, in scikit-learn).

    Raw features reach from 1e-3 to 4254. Standardised: by mean and deviation of the training part.
    """
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    data = _split(torch.from_numpy(features), torch.from_numpy(labels))
    if not standardised:
        return data
    mean, deviation = data.train_inputs.mean(dim=0), data.train_inputs.std(dim=0)
    return Data(
        (data.train_inputs - mean) / deviation,
        data.train_targets,
        (data.test_inputs - mean) / deviation,
        data.test_targets,
    )


def digits(*, images: bool) -> Data:
    """1797 handwritten digits of 8 x 8 pixels from 0 to 16 (scikit-learn), divided by 16."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels) / 16.0
    if images:
        inputs = inputs.reshape(-1, 1, 8, 8)
    return _split(inputs, torch.from_numpy(labels))


def _split(inputs: Tensor, targets: Tensor) -> Data:
    """A fixed shuffle, the same for every seed of a run; the last fifth is the test set."""
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(inputs)))
    inputs, targets = inputs[shuffled].double(), targets[shuffled].long()
    first = len(inputs) - int(_TEST_SHARE * len(inputs))
    return Data(inputs[:first], targets[:first], inputs[first:], targets[first:])


# --- text -----------------------------------------------------------------------------------------

VOCABULARY = 12_000  # the most frequent words; token 0 is every other
CONTEXT = 32
_TOKENS = 400_000
_WORD = re.compile(r"[A-Za-z_]\w*|\d+|[^\w\s]|\n")


def standard_library() -> Data:
    """Windows of 33 tokens from Python's own sources: predict each next word.

    Files are the modules directly in the standard library's folder, by name, until 400,000 tokens;
    names, numbers, single other characters and line ends are tokens. Every fifth window is a test.
    """
    tokens = torch.tensor(_tokens(), dtype=torch.int64)
    whole = len(tokens) // (CONTEXT + 1)
    windows = tokens[: whole * (CONTEXT + 1)].reshape(whole, CONTEXT + 1)
    is_test = torch.arange(whole) % 5 == 4
    train, test = windows[~is_test], windows[is_test]
    return Data(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])


@functools.cache
def _tokens() -> tuple[int, ...]:
    words: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        words += _WORD.findall(path.read_text(encoding="utf-8", errors="replace"))
        if len(words) >= _TOKENS:
            break
    counted = collections.Counter(words)
    # By frequency, then by name, so that ties do not depend on the order of files.
    ranked = sorted(counted, key=lambda word: (-counted[word], word))[: VOCABULARY - 1]
    numbers = {word: place for place, word in enumerate(ranked, start=1)}
    return tuple(numbers.get(word, 0) for word in words[:_TOKENS])
