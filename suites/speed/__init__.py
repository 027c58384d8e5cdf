"""The speed suite: how long each path takes on this machine, beside the others and a plain copy."""
