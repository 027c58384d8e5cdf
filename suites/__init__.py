"""Top floor: what is measured. The catalog introduces kernels to the harness, pytest sweeps."""
