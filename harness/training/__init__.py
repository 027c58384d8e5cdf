"""Training runs along the learning rate: many at once as lanes, watched step by step.

Promises: a lane follows the same trajectory as the run alone, within what the order of reductions
explains, and a lane that goes NaN touches no other; final losses of all paths and precisions come
from one evaluator in fp64. Knows no workload: a module named by a string declares them.
"""
