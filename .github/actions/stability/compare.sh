#!/usr/bin/env bash
# Compares the run with the baseline of its device and writes the job's summary. Exit code 1 fails the job: a finding of
# a kind in $STABILITY_FAIL_ON; so do 2 (unclear, where asked for), 3 (incomplete) and 4 (bad input). Without a baseline
# there is nothing to fall behind: the summary then says how to make this run the first one.
set -euo pipefail

summary=${GITHUB_STEP_SUMMARY:-/dev/stdout}
outputs=${GITHUB_OUTPUT:-/dev/null}
stability() { "$STABILITY_PYTHON" -m harness "$@"; }

baseline=$(stability baseline path "$STABILITY_OUT" --in "$STABILITY_BASELINES")
if [[ ! -e $baseline/run.json ]]; then
    stability table "$STABILITY_OUT" --format markdown >"$STABILITY_OUT/table.md"
    {
        echo "### No baseline for this device yet"
        echo
        echo "\`$baseline\` does not exist, so nothing could be compared and nothing failed. To make this run the first"
        echo "baseline, download the artifact of this job, look at its report, and commit it:"
        echo
        echo '```'
        echo "stability baseline set DOWNLOADED --in $STABILITY_BASELINES"
        echo "git add $baseline"
        echo '```'
        echo
        echo "<details><summary>What was measured</summary>"
        echo
        cat "$STABILITY_OUT/table.md"
        echo
        echo "</details>"
    } >>"$summary"
    echo "::notice title=Stability::No baseline for this device yet; the job's summary says how to make this run it."
    echo "result=no-baseline" >>"$outputs"
    exit 0
fi

code=0
stability compare "$baseline" "$STABILITY_OUT" --fail-on "$STABILITY_FAIL_ON" --format markdown \
    --out "$STABILITY_OUT/compare.md" || code=$?
if [[ -e $STABILITY_OUT/compare.md ]]; then cat "$STABILITY_OUT/compare.md" >>"$summary"; fi
case $code in
    0) echo "result=ok" >>"$outputs" ;;
    1) echo "result=regression" >>"$outputs" ;;
    2) echo "result=unclear" >>"$outputs" ;;
esac
exit "$code"
