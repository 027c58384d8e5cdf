#!/usr/bin/env bash
# Writes the report beside the run. Nothing was measured if there is no run.json: whoever failed has said why.
set -euo pipefail

if [[ -e $STABILITY_OUT/run.json ]]; then
    "$STABILITY_PYTHON" -m harness report "$STABILITY_OUT" -o "$STABILITY_OUT/report.html"
fi
