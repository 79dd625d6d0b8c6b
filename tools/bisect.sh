#!/usr/bin/env bash
# Says for `git bisect run` whether the commit that is checked out is as bad as the one that was accused.
#
#   git bisect start BAD GOOD
#   git bisect run tools/bisect.sh CELL [PROFILE [METRIC]]      METRIC: s_per_iter, or as zoo-bench check --metric has it
#   git bisect reset
#
# results/ must not be part of what git checks out (a checkout of its own, as in docs/regression.md, or ignored): what
# was accepted counts for every commit. A commit on which the cell does not run is skipped.
set -uo pipefail

cell=$1
profile=${2:-speed}
metric=${3:-s_per_iter}
zoo-bench run --profile "$profile" --select "$cell" --force || exit 125
zoo-bench check --profile "$profile" --select "$cell" --metric "$metric" --confirm "${CONFIRM:-2}"
case $? in
    0) exit 0 ;;
    3) exit 1 ;;
    *) exit 125 ;;
esac
