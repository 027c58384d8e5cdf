"""Timing: how long each path takes, interleaved with the others, on a GPU by its own events.

`workload.py` and `speed_plan.py` say what is timed, `tiled.py` lays the inputs out on the device,
`subject.py` is a path ready to be called, `rounds.py` takes the samples, `cuda_clock.py` and
`cpu_clock.py` are the clocks, `card.py` reads the GPU's own, `check.py` judges the outputs before
and after, `measure.py` walks through all of it, and `replay.py` shows it to pytest-benchmark.
"""
