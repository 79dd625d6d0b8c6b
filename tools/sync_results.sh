#!/usr/bin/env bash
# Keeps results/ in step with a branch of its own, zoo-results: commits the records that are new, pulls, and pushes.
#
#   tools/sync_results.sh REPOSITORY     its address
#
# Where results/ is no checkout yet it becomes one; where the branch is not there yet it is made. Nothing is deleted.
set -euo pipefail

address=$1
git init --quiet --initial-branch zoo-results results
cd results
identity=(-c user.name=zoo-bench -c user.email=zoo-bench@localhost)
git add --all -- . ':!runs' ':!checkpoints' ':!locks'
git diff --cached --quiet || git "${identity[@]}" commit --quiet --message "Records up to $(date -u +%F)"
if git ls-remote --exit-code --heads "$address" zoo-results > /dev/null; then
    git "${identity[@]}" pull --quiet --rebase "$address" zoo-results
fi
if git rev-parse --quiet --verify HEAD > /dev/null; then git push --quiet "$address" HEAD:zoo-results; fi
