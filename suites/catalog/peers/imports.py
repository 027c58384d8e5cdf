"""Getting a function out of a library that may be absent, or may not want to be imported here.

Whatever goes wrong on the way becomes a NotImplementedError with a reason, which the harness
records as `unsupported`: an optional library never brings down a sweep.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, wraps
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from suites.catalog.triton_path import on_triton

# Paths of the catalog that are a package of one name on the index and of another in Python.
_INDEX_NAMES = {
    "liger_kernel": "liger-kernel",
    "flag_gems": "flag-gems",
    "quack": "quack-kernels",
    "flash_attn": "flash-attn",
    "transformer_engine": "transformer-engine",
}

# Measured in triton 3.9: fp32 to bf16 is cut off where a GPU rounds, and subnormals are lost both
# ways. What a peer stores in bf16 would be blamed on the peer; our kernels convert by themselves.
_NO_BF16 = "Triton's interpreter converts bf16 wrongly, so that a peer is judged on a GPU alone"


def function(module: str, name: str) -> Callable[..., Any]:
    """A function of an installed library.

    Raises:
        NotImplementedError: if the library is not installed, cannot be imported here, or has no
            such function in this version; the message says which.
    """
    loaded = _imported(module)
    if isinstance(loaded, str):
        raise NotImplementedError(loaded)
    return attribute(loaded, name)


def attribute(module: ModuleType, name: str) -> Callable[..., Any]:
    """A module's function; raises NotImplementedError if this version has none of that name."""
    found = getattr(module, name, None)
    if not callable(found):
        raise NotImplementedError(f"{_version(module.__name__)} has no {module.__name__}.{name}")
    return found  # type: ignore[no-any-return]


def require(package: str) -> None:
    """Raises NotImplementedError if a package is not installed; imports nothing."""
    if not _is_installed(package):
        index_name = _INDEX_NAMES.get(package, package)
        raise NotImplementedError(f"{index_name} is not installed")


def on_cuda(first: Tensor, reason: str) -> None:
    """Raises NotImplementedError with the reason for a tensor that is not on a CUDA device."""
    if not first.is_cuda:
        raise NotImplementedError(reason)


@cache  # a failing import is as slow as a working one, and fails the same way again
def _imported(module: str) -> ModuleType | str:
    """The module, or in words why there is none."""
    package = module.partition(".")[0]
    try:
        require(package)
        with quiet():
            return importlib.import_module(module)
    except NotImplementedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - what a foreign package raises is its reason
        told = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        return f"{_version(package)} cannot be imported here: {told}"


@cache
def files_alone(
    module: str,
    *,
    stand_ins: tuple[tuple[str, str], ...] = (),  # (module, function): decorators that do nothing
) -> ModuleType:
    """A module of Triton kernels, imported without running the `__init__` of its packages.

    Those load CUDA extensions, which a machine without a GPU has not. The module is the library's
    own file, unchanged; only its `torch.cuda.device(...)`, which cannot name a CPU, is replaced by
    nothing, within this one module. Afterwards `sys.modules` is as it was.

    Raises:
        NotImplementedError: if the library is not installed or the file needs more than that.
    """
    package = module.partition(".")[0]
    require(package)
    try:
        with quiet(), _bare_packages(module, stand_ins):
            loaded = importlib.import_module(module)
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise NotImplementedError(
            f"{_version(package)} cannot be read without a CUDA device: {told}"
        ) from error
    loaded.__dict__["torch"] = _Seen(torch, cuda=_Seen(torch.cuda, device=lambda *_: nullcontext()))
    return loaded


@contextmanager
def _bare_packages(module: str, stand_ins: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Packages that are only folders, so that importing a file below does not run them."""
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    folders = [Path(each) for each in (spec.submodule_search_locations or ())] if spec else []
    before = dict(sys.modules)
    try:
        for name in [each for each in sys.modules if each.partition(".")[0] == package]:
            del sys.modules[name]
        for folder in sorted({each for root in folders for each in _packages_below(root)}):
            shell = ModuleType(".".join((package, *folder)))
            shell.__path__ = [str(root.joinpath(*folder)) for root in folders]
            sys.modules[shell.__name__] = shell
        for name, decorator in stand_ins:
            stand_in = ModuleType(name)
            stand_in.__dict__[decorator] = lambda *_: lambda wrapped: wrapped
            sys.modules[name] = stand_in
        yield
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(
            {name: kept for name, kept in before.items() if name.partition(".")[0] == package}
        )


def _packages_below(root: Path) -> list[tuple[str, ...]]:
    """Folders of a package that are packages themselves, as path parts; the root's are none."""
    return [
        each.parent.relative_to(root).parts
        for each in root.rglob("__init__.py")
        if len(each.relative_to(root).parts) <= 4  # kernels lie at most three packages down
    ]


class _Seen:
    """A module seen through a few replaced attributes; everything else is the module's own."""

    def __init__(self, real: ModuleType, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of a library are its users' business, and no error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def triton_adapter(adapter: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For adapters of Triton kernels: they run on CUDA tensors or in the interpreter, quietly."""

    @wraps(adapter)  # the harness reads the roles and options off the signature
    def checked(input: Tensor, *roles: Tensor, **options: Any) -> Tensor:
        on_triton(input)
        if input.dtype is torch.bfloat16 and not input.is_cuda:
            raise NotImplementedError(_NO_BF16)
        with quiet():
            return adapter(input, *roles, **options)

    return checked


@cache
def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _version(module: str) -> str:
    index_name = _INDEX_NAMES.get(module.partition(".")[0], module.partition(".")[0])
    try:
        return f"{index_name} {metadata.version(index_name)}"
    except metadata.PackageNotFoundError:
        return index_name
