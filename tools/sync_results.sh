#!/usr/bin/env bash
# Keeps results/ in step with a branch of its own, zoo-results: commits the records that are new, pulls, and pushes.
#
#   tools/sync_results.sh REPOSITORY     its address
#
# Where results/ is no checkout yet it becomes one; where the branch is not there yet it is made. What is missing here comes
# back from the branch, but for what was deleted with "git -C results rm". Where the same baseline was changed on both sides
# it fails, and changes nothing; the commands that it runs stand below. What a user's own git settings ignore, sign or hook
# does not count.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    usage
    exit
fi
if [ $# != 1 ] || [[ $1 == -* ]]; then
    usage >&2
    exit 2
fi
address=$1
export GIT_REFLOG_ACTION=sync # else git would note the address, with what it may hold of a password
[ -d results/.git ] || git init --quiet --initial-branch zoo-results results
git=(git -C results -c user.name=zoo-bench -c user.email=zoo-bench@localhost -c commit.gpgSign=false
    -c core.excludesFile=/dev/null -c core.hooksPath=/dev/null)
mine=results/.git/rebase-of-sync # while a rebase is this script's own
if [ -n "$(find results/.git/index.lock -mmin +60 2> /dev/null)" ]; then
    echo "sync_results: results/.git/index.lock is an hour old, of a git that was killed: taken away" >&2
    rm -f results/.git/index.lock
fi
if [ -e $mine ]; then # it was killed
    "${git[@]}" rebase --abort 2> /dev/null || true
    rm -f $mine
fi
for underway in rebase-merge rebase-apply MERGE_HEAD; do
    if [ -e results/.git/$underway ]; then
        echo "sync_results: somebody is in the midst of a merge or rebase in results/; nothing was touched." >&2
        echo "End it there with git rebase --continue or git commit, or --abort it; then call this again." >&2
        exit 1
    fi
done
# Without what a killed writer has left beside its file.
"${git[@]}" add --ignore-removal -- . ':!runs' ':!checkpoints' ':!locks' ':(exclude,glob)**/.*'
"${git[@]}" diff --cached --quiet || "${git[@]}" commit --quiet --message "Records up to $(date -u +%F)"
"${git[@]}" ls-files --deleted -z | xargs --null --no-run-if-empty "${git[@]}" checkout --quiet --

code=0
"${git[@]}" ls-remote --exit-code --heads "$address" zoo-results > /dev/null || code=$?
if [ $code != 0 ] && [ $code != 2 ]; then # 2: the branch is not there yet
    echo "sync_results: the repository cannot be read; from results/ its address must lead there" >&2
    exit 1
fi
if [ $code = 0 ]; then
    "${git[@]}" fetch --quiet "$address" zoo-results
    touch $mine
    if ! "${git[@]}" rebase --quiet FETCH_HEAD > /dev/null 2>&1; then
        both=$("${git[@]}" diff --name-only --diff-filter=U)
        "${git[@]}" rebase --abort
        rm $mine
        {
            echo "sync_results: here and on the branch zoo-results the same file was changed:"
            echo "${both:-nothing that git names}" | sed 's/^/    results\//'
            echo "Nothing was pushed. Settle it in results/: git pull --rebase ADDRESS zoo-results, mend the file,"
            echo "git add it, git rebase --continue; then call this again."
        } >&2
        exit 1
    fi
    rm $mine
fi
if "${git[@]}" rev-parse --quiet --verify HEAD > /dev/null; then "${git[@]}" push --quiet "$address" HEAD:zoo-results; fi
