"""The catalog: per operation its inputs, its truth, its paths and what they claim.

The harness loads this module by name (`--catalog` names another) and reads OPERATIONS; `shaped_as`
lets `stability inspect` launch the paths' kernels without a GPU, and `speed_workloads` says which
shapes the speed suite times.
"""

from suites.catalog.binary_cross_entropy import BINARY_CROSS_ENTROPY
from suites.catalog.cross_entropy import CROSS_ENTROPY
from suites.catalog.layer_norm import LAYER_NORM
from suites.catalog.linear_cross_entropy import LINEAR_CROSS_ENTROPY
from suites.catalog.log_softmax import LOG_SOFTMAX
from suites.catalog.normalize import NORMALIZE
from suites.catalog.rms_norm import RMS_NORM
from suites.catalog.shaping import LaunchShapes, shaped_as
from suites.catalog.softmax import SOFTMAX
from suites.catalog.timed_sizes import speed_workloads

OPERATIONS = (
    CROSS_ENTROPY,
    LINEAR_CROSS_ENTROPY,
    BINARY_CROSS_ENTROPY,
    NORMALIZE,
    RMS_NORM,
    LAYER_NORM,
    SOFTMAX,
    LOG_SOFTMAX,
)

# What `stability tune` chooses.
launch_shapes = LaunchShapes()

__all__ = ["OPERATIONS", "launch_shapes", "shaped_as", "speed_workloads"]
