#!/usr/bin/env bash
# Keeps results/ in step with a branch of its own, zoo-results: commits the records that are new, pulls, and pushes.
#
#   tools/sync_results.sh REPOSITORY     its address
#
# Where results/ is no checkout yet it becomes one; where the branch is not there yet it is made. Nothing is deleted: what
# is missing here comes back from the branch. Where the same baseline was changed on both sides it fails, and changes
# nothing; the commands that it runs stand below.
set -euo pipefail
cd "$(dirname "$0")/.."

address=${1:?the address of the repository is missing}
export GIT_REFLOG_ACTION=sync # else git would note the address, with what it may hold of a password
git init --quiet --initial-branch zoo-results results
cd results
identity=(-c user.name=zoo-bench -c user.email=zoo-bench@localhost)
git rebase --abort 2> /dev/null || true # of a run that was killed
git add --ignore-removal -- . ':!runs' ':!checkpoints' ':!locks'
git diff --cached --quiet || git "${identity[@]}" commit --quiet --message "Records up to $(date -u +%F)"
git ls-files --deleted -z | xargs --null --no-run-if-empty git checkout --quiet --
if git ls-remote --exit-code --heads "$address" zoo-results > /dev/null; then
    if ! git "${identity[@]}" pull --quiet --rebase "$address" zoo-results; then
        git rebase --abort
        echo "sync_results: results/ and the branch zoo-results have changed the same file; settle it by hand in results/" >&2
        exit 1
    fi
fi
if git rev-parse --quiet --verify HEAD > /dev/null; then git push --quiet "$address" HEAD:zoo-results; fi
