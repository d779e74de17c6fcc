# shellcheck shell=bash
# What the scripts share. Sourced, never run; every script starts with it, from any folder.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# A cargo or a tool installed a moment ago is found, even where the shell's start-up files do not name its folder yet.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

# Things that take long to make and never change live outside the tree, once for all clones of it.
# shellcheck disable=SC2034 # used by those who source this
fixtures_dir="${TROCAR_CACHE:-$HOME/.cache/trocar}/fixtures"

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
fail() {
    warn "$(basename "$0"): $*"
    exit 1
}

# Seconds since an earlier $EPOCHREALTIME, with one decimal.
since() {
    awk -v from="${1/,/.}" -v to="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f s", to - from }'
}
