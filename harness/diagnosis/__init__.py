"""Finds the NaN in a training: which step, which operation, which line, why, and what cures it.

`tape` sees every operation of a step, `flow` follows what is not finite from its birth to the
loss, gradients and parameters, `cause` says why, `replay` runs the step again, `fixes` tries
repairs on it. Promises: a script is run once and unchanged; infinities that are consumed
harmlessly are no finding.
"""
