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
[ -e results/.git ] || git init --quiet --initial-branch zoo-results results
git=(git -C results -c user.name=zoo-bench -c user.email=zoo-bench@localhost -c commit.gpgSign=false
    -c core.excludesFile=/dev/null -c core.hooksPath=/dev/null -c gc.autoDetach=false)
folder=$("${git[@]}" rev-parse --absolute-git-dir)
exec 9> "$folder/sync.lock"
if ! flock --wait 600 9; then
    echo "sync_results: another one has been at it for ten minutes" >&2
    exit 1
fi

if [ -n "$(find "$folder/index.lock" -mmin +60 2> /dev/null)" ]; then
    echo "sync_results: $folder/index.lock is an hour old, of a git that was killed: taken away" >&2
    rm -f "$folder/index.lock"
fi
mine=$folder/sync.rebase # while a rebase is this script's own: the commit that it began with
if [ -e "$mine" ]; then  # it was killed
    if cmp --quiet "$mine" "$folder/rebase-merge/orig-head"; then "${git[@]}" rebase --abort; fi
    rm -f "$mine"
fi
underway=$("${git[@]}" ls-files --unmerged)
for name in rebase-merge rebase-apply MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
    if [ -e "$folder/$name" ]; then underway=$name; fi
done
if [ -n "$underway" ]; then
    echo "sync_results: somebody is in the midst of merging in results/, where git status says more; nothing was" >&2
    echo "touched. End that there, with git rebase --continue, git commit or --abort; then call this again." >&2
    exit 1
fi
# Without what a killed writer has left beside its file.
"${git[@]}" add --ignore-removal -- . ':!runs' ':!checkpoints' ':!locks' ':(exclude,glob)**/.*.json.*'
"${git[@]}" diff --cached --quiet || "${git[@]}" commit --quiet --message "Records up to $(date -u +%F)"
"${git[@]}" ls-files --deleted -z | xargs --null --no-run-if-empty "${git[@]}" checkout --quiet --

code=0
"${git[@]}" ls-remote --exit-code --heads "$address" zoo-results > /dev/null || code=$?
if [ $code != 0 ] && [ $code != 2 ]; then # 2: the branch is not there yet
    echo "sync_results: the repository cannot be read; from results/ its address must lead there" >&2
    exit 1
fi
# Puts what is new here behind the branch; where that cannot be done it says why, and changes nothing.
put_behind() {
    local said both
    "${git[@]}" rev-parse HEAD > "$mine"
    if said=$("${git[@]}" rebase FETCH_HEAD 2>&1); then
        rm -f "$mine"
        return
    fi
    both=$("${git[@]}" diff --name-only --diff-filter=U)
    "${git[@]}" rebase --abort > /dev/null 2>&1 || true # it may not have begun
    rm -f "$mine"
    if [ -n "$both" ]; then
        echo "sync_results: here and on the branch zoo-results the same file was changed:"
        echo "$both" | sed 's/^/    results\//'
        echo "Nothing was pushed. Settle it in results/: git pull --rebase ADDRESS zoo-results, mend the file,"
        echo "git add it, git rebase --continue; then call this again."
    else
        printf 'sync_results: git could not put what is new here behind the branch zoo-results:\n%s\n' "$said"
    fi >&2
    return 1
}
has_commits() { "${git[@]}" rev-parse --quiet --verify HEAD > /dev/null; }
if [ $code = 0 ]; then
    "${git[@]}" fetch --quiet "$address" zoo-results
    # Nothing was run yet on a machine that is new.
    if ! has_commits; then "${git[@]}" checkout --quiet -B zoo-results FETCH_HEAD; else put_behind; fi
fi
if has_commits; then "${git[@]}" push --quiet "$address" HEAD:zoo-results; fi
