#!/usr/bin/env bash
# One night of a zoo: time every cell's training, measure the accepted models, and say what got worse.
#
#   tools/nightly.sh [--anew] [PROFILE [WHERE]]     PROFILE: speed; WHERE: the folder for the reports, nightly-report
#                                              in the zoo's folder
#
# --anew trains, times and evaluates new models, in place of the accepted ones: a run of the full recipe, with a seed that
# is another one each week.
# Beside zoo-bench's own, these variables count: SELECT (all), the cells, as run --select takes them; CONFIRM (4; with
# --anew 0), how often what looks changed is run again. Its exit code is that of zoo-bench check, 3 when something got
# worse; where that is 0 and something could not be run, 2.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    usage
    exit
fi
anew=
if [ "${1:-}" = --anew ]; then
    anew=yes
    CONFIRM=${CONFIRM:-0}
    shift
fi
if [ $# -gt 2 ] || [[ "$*" =~ (^|\ )- ]] || [[ ! ${CONFIRM:=4} =~ ^(0|[2-9]|[1-9][0-9]|100)$ ]]; then
    usage >&2
    exit 2
fi
PATH=$PATH:$PWD/.venv/bin
if ! command -v zoo-bench > /dev/null; then
    echo "nightly: there is no zoo-bench; run make setup first" >&2
    exit 2
fi
chosen=(--profile "${1:-speed}" ${SELECT:+--select "$SELECT"})
reports=${2:-nightly-report}
mkdir -p "$reports" || exit 2
rm -f "$reports"/check.{md,xml,json} # those of the night before
zoo-bench plan "${chosen[@]}" > /dev/null || exit # what is written wrong must not be found out after the night

# A cell that fails is a finding of the check, which is made whatever happens before it, but for Ctrl-C.
broken=0
measure() {
    zoo-bench run "${chosen[@]}" --force "$@"
    local code=$?
    if [ $code -ge 128 ]; then exit $code; fi
    if [ $code -eq 2 ]; then broken=2; fi
}

# What workers say is printed, and must command nothing.
token=
if [ -n "${GITHUB_ACTIONS:-}" ]; then
    token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "::stop-commands::$token"
fi
if [ -n "$anew" ]; then
    measure --seed $(($(date +%s) / 604800))
else
    measure --phases train
    if compgen -G 'results/baselines/*.json' > /dev/null; then measure --phases infer,evaluate --accepted; fi
fi
if [ -n "$token" ]; then echo "::$token::"; fi

# What began before this night is not of it.
hours=$(LC_ALL=C awk "BEGIN { print ($SECONDS + 60) / 3600 }")
zoo-bench check "${chosen[@]}" --confirm "$CONFIRM" --max-age "$hours" \
    --markdown "$reports/check.md" --junit "$reports/check.xml" --json "$reports/check.json" ${GITHUB_ACTIONS:+--github}
code=$?
if [ $code -eq 0 ]; then code=$broken; fi
exit $code
