#!/usr/bin/env bash
# Runs the two commands as somebody does who has just cloned the tree: a fresh clone of HEAD in a temporary folder, an
# empty build folder, an empty fixture cache. Only the downloads that cargo, npm and pip keep in the home are shared.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if [ -n "$(git status --porcelain)" ]; then
    warn "clean-room: the work tree has changes that are not committed; they are NOT part of this run:"
    git status --short | head -n 20 >&2
fi

room=$(mktemp -d "${TMPDIR:-/tmp}/trocar-clean-room.XXXXXX")
trap 'rm -rf "$room"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
say "clean-room: $(git rev-parse --short HEAD) in $room"
git clone --quiet --no-hardlinks . "$room/trocar"
cd "$room/trocar"

timings=()
# timed NAME COMMAND...: in the clone, with nothing of ours in the environment.
timed() {
    local name=$1 started=$EPOCHREALTIME status=0 result=ok
    shift
    env -u CARGO_TARGET_DIR -u MAKEFLAGS -u MAKELEVEL -u MFLAGS TROCAR_CACHE="$room/cache" "$@" || status=$?
    if ((status)); then result="FAILED ($status)"; fi
    timings+=("$(printf '%-10s %10s  %s' "$name" "$(since "$started")" "$result")")
    return "$status"
}

status=0
timed "make demo" DEMO_EXIT_AFTER_READY=1 make demo </dev/null || status=1
timed "make test" make test </dev/null || status=1
say ""
say "clean-room:"
printf '  %s\n' "${timings[@]}"
exit "$status"
