"""Linear layers with weight normalisation: rows w = g v / ||v||, right for rows of any size.

`WeightNormLinear` computes its row norms at every forward pass; `FastNormLinear`, after
`attach_fastnorm(optimizer, model)`, infers them from plain SGD's updates and computes them wherever
anything else may have changed the weight. Promises: no normalised weight is ever made; a norm that
is not what the weight's is found and computed again; norm state in fp32 (fp64 for fp64), with its
measured drift exposed.
"""

from .attach import FastNormHandle, attach_fastnorm
from .fastnorm import FastNormLinear, NormStatistics
from .linear import WeightNormLinear

__all__ = [
    "FastNormHandle",
    "FastNormLinear",
    "NormStatistics",
    "WeightNormLinear",
    "attach_fastnorm",
]
