"""What two runs were measured on and with, where it differs, and whether they may be compared."""

from dataclasses import dataclass

from harness.errors import InputError
from harness.store import Run


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact of run.json that is not the same in both runs."""

    name: str
    base: str  # "-" where a run does not say
    new: str


# What numbers are not comparable across: other draws, another device.
_DECISIVE = ("device", "device model", "seed")


def environment_differences(base: Run, new: Run) -> tuple[Difference, ...]:
    """What the runs were measured with and asked for, where it differs."""
    first, second = (facts(each) | _asked(each) for each in (base, new))
    return tuple(
        Difference(name, first.get(name, "-"), second.get(name, "-"))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
        # An option that only a newer version of this tool knows was at its default before.
        and not (name.startswith(_ASKED) and (name not in first or name not in second))
    )


def asked_alike(base: Run, new: Run) -> bool:
    """Whether both runs were asked for the same cases, as far as both say."""
    first, second = _asked(base), _asked(new)
    return all(first[name] == second[name] for name in first.keys() & second.keys())


def check_comparable(differences: tuple[Difference, ...], *, timed: bool, kind: object) -> None:
    """Refuse runs of different devices or seeds.

    Two models of GPU round and time differently, though they may share a short name. The
    interpreter computes the same on every CPU: there the model matters for timings (`timed`) alone.

    Raises:
        InputError: naming the first such difference, and how to compare all the same.
    """
    by_name = {each.name: each for each in differences}
    for name in _DECISIVE:
        if name == "device model" and kind != "cuda" and not timed:
            continue
        if name in by_name:
            found = by_name[name]
            raise InputError(
                f"the runs differ in {name}: {found.base} against {found.new};"
                " compare them all the same with --any-device"
            )


def facts(run: Run) -> dict[str, str]:
    """What run.json says that can change a number, by name."""
    environment = run.environment
    found = {}
    device = environment.get("device")
    if isinstance(device, dict):
        found["device"] = str(device.get("name"))
        found["device model"] = str(device.get("model"))
        found |= {name: str(device[name]) for name in _OF_DEVICE if name in device}
    for name in ("seed", "python", "platform"):
        found[name] = str(environment.get(name))
    for section in ("versions", "switches"):
        values = environment.get(section)
        if isinstance(values, dict):
            found |= {str(key): str(value) for key, value in values.items() if value != ""}
    return found | _commit(environment.get("git"))


_OF_DEVICE = ("threads", "capability", "driver", "cuda", "clock_sm_max")


def versions(run: Run) -> dict[str, str]:
    """What code that is not this project's was measured with: packages, driver."""
    found = facts(run)
    named = run.environment.get("versions")
    packages = [str(key) for key in named] if isinstance(named, dict) else []
    return {name: found[name] for name in (*packages, "driver", "cuda") if name in found}


_ASKED = "asked for "


def _asked(run: Run) -> dict[str, str]:
    asked = run.environment.get("asked")
    given = asked.items() if isinstance(asked, dict) else ()
    return {f"{_ASKED}{key}": str(value) for key, value in given}


def _commit(git: object) -> dict[str, str]:
    if not isinstance(git, dict) or not isinstance(git.get("commit"), str):
        return {}
    changed = " with local changes" if git.get("dirty") else ""
    return {"commit": git["commit"][:12] + changed}
