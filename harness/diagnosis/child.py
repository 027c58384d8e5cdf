"""The process in which somebody's script runs, unchanged and once, while a session watches.

Started by `harness.diagnosis.script` as `python -B child.py TASK SCRIPT ARGS`, where TASK is a
JSON file that says where the answer goes. The script sees itself as `__main__`, its own directory
first on the path and its own arguments.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


class Enough(BaseException):
    """Raised in the script when its time is over. No `except Exception` stops it."""


def main() -> None:
    """Run the script; write the diagnosis; leave with the script's own exit code."""
    task = json.loads(Path(sys.argv[1]).read_text())
    # This file's folder is first on the path, and its `numbers` would hide the standard library's.
    sys.path[0] = task["checkout"]
    script, arguments = sys.argv[2], sys.argv[3:]
    from harness.diagnosis.answer import Answer
    from harness.diagnosis.finding import Diagnosis

    answer = Answer(Path(task["answer"]))
    code = _compiled(script, answer)
    from harness.diagnosis.deepen import deepen
    from harness.diagnosis.session import Session

    base = os.path.dirname(os.path.abspath(script))
    session = Session(
        base=base,
        deepen=lambda *known: deepen(*known, save=task["save"]),
        report=lambda finding: _found(session, answer, float(task["grace"])),
    )
    # A forked child (a DataLoader's worker, a subprocess about to start) is not watched.
    os.register_at_fork(after_in_child=session.detach_child)
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=script, __builtins__=__builtins__, __spec__=None, __cached__=None, __loader__=None
    )
    sys.argv = [script, *arguments]
    sys.path[0] = base
    sys.modules["__main__"] = module
    status, failed, notes = 0, False, []
    session.start()
    try:
        exec(code, module.__dict__)
    except Enough:
        notes.append(f"the script was stopped {task['grace']:g} s after the finding (--grace)")
    except SystemExit as ended:
        status, failed = _exit_status(ended), bool(_exit_status(ended))
    except KeyboardInterrupt:
        status, failed = 130, True
        notes.append("interrupted")
    except BaseException as error:  # noqa: BLE001  # whatever a script raises is the script's answer
        status, failed = 1, True
        _print_like_python(error)
    finally:
        sys.stdout.flush()
    session.finish(failed)
    session.stop()
    diagnosis = session.diagnosis(tuple(notes))
    if failed and diagnosis.outcome != "nonfinite":
        diagnosis = Diagnosis("script_error", diagnosis.findings, diagnosis.steps, diagnosis.notes)
    answer.write(diagnosis, status)
    sys.exit(status)


def _found(session: Any, answer: Any, grace: float) -> None:
    """A finding is there: write it at once, and let the script run on for a while at full speed."""
    answer.write(session.diagnosis(), None)
    end = time.monotonic() + grace
    import torch

    from harness.diagnosis.steps import Wrapped

    def check(original: Any, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > end:
            raise Enough
        return original(*args, **kwargs)

    Wrapped().wrap(torch.autograd, "backward", check)


def _compiled(script: str, answer: Any) -> Any:
    try:
        return compile(Path(script).read_bytes(), script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        from harness.diagnosis.finding import Diagnosis

        traceback.print_exception(error, limit=0)
        answer.write(Diagnosis("script_error"), 1)
        sys.exit(1)


def _exit_status(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return int(ended.code or 0)
    print(ended.code, file=sys.stderr)
    return 1


def _print_like_python(error: BaseException) -> None:
    """The script's traceback as Python prints it, without this file's frame at its top."""
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_code.co_filename == __file__:
        shown = shown.tb_next
    sys.excepthook(type(error), error.with_traceback(shown), shown)


if __name__ == "__main__":
    main()
