"""Proof that the kernels keep their promises: each against certified truth, on a GPU where there is
one, else interpreted.
"""
