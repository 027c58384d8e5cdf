"""The catalog: per operation its inputs, its truth, its paths and what they claim.

The harness loads this module by name (`--catalog` names another) and reads OPERATIONS.
"""

from suites.catalog.binary_cross_entropy import BINARY_CROSS_ENTROPY
from suites.catalog.cross_entropy import CROSS_ENTROPY
from suites.catalog.normalize import NORMALIZE

OPERATIONS = (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, NORMALIZE)
