#!/usr/bin/env bash
# Runs the suites into $STABILITY_OUT. A broken claim (exit code 1) does not stop the job here: whether it is a
# regression says the comparison. A run that did not finish, or could not begin, does.
set -euo pipefail

# Words, as the inputs are documented; without globs, which --operation has of its own.
set -f
read -r -a suites <<<"${STABILITY_SUITES//$'\n'/ }"
read -r -a arguments <<<"${STABILITY_ARGS//$'\n'/ }"
set +f

code=0
"$STABILITY_PYTHON" -m harness run "${suites[@]}" "${arguments[@]}" --out "$STABILITY_OUT" || code=$?
case $code in
    0) ;;
    1) echo "::warning title=Stability::A path breaks one of its claims; the comparison says whether that is new." ;;
    *) exit "$code" ;;
esac
