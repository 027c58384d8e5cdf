"""Finding the catalog: operations come from a module named by a string, imported when needed."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:  # torch, which those who only ask for the default's name do not need
    from harness.operation import Operation

DEFAULT = "suites.catalog"


def load_catalog(name: str | None = None) -> Mapping[str, "Operation"]:
    """The operations of a catalog module, by name, in the module's order.

    A catalog is a module with a sequence `OPERATIONS`. Importing it runs its code.

    Raises:
        InputError: if the module cannot be imported, or has no usable OPERATIONS.
    """
    from harness.operation import Operation

    wanted = name or DEFAULT
    if wanted.startswith("."):
        raise InputError(f"the catalog {wanted!r} is a relative name; name it from its top package")
    # From a checkout that is not installed, and for a catalog beside the user's own code, the
    # console script does not have these folders on its path.
    for folder in (str(Path(__file__).resolve().parents[1]), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        module = importlib.import_module(wanted)
    except Exception as error:  # the module's own code, which may raise anything
        raise InputError(
            f"cannot import the catalog {wanted!r}: {type(error).__name__}: {error};"
            " --catalog takes a module name such as suites.catalog"
        ) from error
    operations = getattr(module, "OPERATIONS", None)
    if not isinstance(operations, (tuple, list)) or not all(
        isinstance(each, Operation) for each in operations
    ):
        raise InputError(
            f"the catalog {wanted!r} has no sequence OPERATIONS of harness.Operation; see"
            " CONTRIBUTING.md, 'Sweep a kernel of your own'"
        )
    return {each.name: each for each in operations}


def operation_named(name: str, catalog: str | None = None) -> "Operation":
    """One operation of a catalog; raises InputError with the valid names."""
    from harness.errors import unknown

    operations = load_catalog(catalog)
    if name not in operations:
        raise unknown("operation", name, operations)
    return operations[name]
