"""What the harness raises when the request, not the code, is at fault."""


class InputError(ValueError):
    """Bad input: an unknown name, a malformed range, a damaged file, a missing device.

    The message is one clear sentence that says what was given, what is valid, and what to do. The
    command line prints it without a traceback and exits with code 4.
    """


def unknown(
    kind: str,  # what was asked for, in the singular: "operation", "dtype"
    given: str,
    valid: object,  # an iterable of the valid names
) -> InputError:
    """Build the error for a name that is not among the valid ones."""
    choices = ", ".join(sorted(str(name) for name in valid))  # type: ignore[attr-defined]
    return InputError(f"unknown {kind} {given!r}; choose from: {choices}")
