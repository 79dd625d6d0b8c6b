#!/usr/bin/env bash
# One night of a zoo: time every cell's training, measure the accepted models, and say what got worse.
#
#   tools/nightly.sh [--anew] [PROFILE [WHERE]]     PROFILE: speed; WHERE: the folder for the reports, nightly-report
#
# --anew trains, times and evaluates new models, in place of the accepted ones: a run of the full recipe.
# Beside zoo-bench's own, these variables count: CONFIRM (4; with --anew 0), how often what looks changed is run again;
# MAX_AGE (20), hours after which a run is no longer tonight's. Its exit code is that of zoo-bench check, 3 when something
# got worse; where that is 0 and something could not be run, 2.
set -uo pipefail

anew=
if [ "${1:-}" = --anew ]; then
    anew=yes
    CONFIRM=${CONFIRM:-0}
    shift
fi
profile=${1:-speed}
reports=${2:-nightly-report}
mkdir -p "$reports" || exit 2
rm -f "$reports"/check.* # those of the night before

# A cell that fails is a finding of the check, which is made whatever happens before it, but for Ctrl-C.
broken=0
measure() {
    zoo-bench run --profile "$profile" --force "$@"
    local code=$?
    if [ $code -ge 128 ]; then exit $code; fi
    if [ $code -eq 2 ]; then broken=2; fi
}

if [ -n "$anew" ] || [ -z "$(ls results/baselines 2>/dev/null)" ]; then
    measure
else
    measure --phases train
    measure --phases infer,evaluate --accepted
fi

zoo-bench check --profile "$profile" --confirm "${CONFIRM:-4}" --max-age "${MAX_AGE:-20}" \
    --markdown "$reports/check.md" --junit "$reports/check.xml" --json "$reports/check.json" ${GITHUB_ACTIONS:+--github}
code=$?
if [ $code -eq 0 ]; then code=$broken; fi
exit $code
