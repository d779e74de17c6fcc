#!/usr/bin/env bash
# Load tests on one machine, by hand: `make load`. Each scenario against a relay of its own; relay and generator are pinned apart.
#   scripts/load.sh             those of docs/LOAD.md, and puts what they print there
#   scripts/load.sh SCENARIO…   others; nothing is kept in the document
set -euo pipefail
cd "$(dirname "$0")/.."

trocar=target/debug/trocar
out=var/artifacts/load
mkdir -p "$out"
scenarios=("$@")
document=
if [ ${#scenarios[@]} -eq 0 ]; then
    scenarios=(configs/load/{4k-16-viewers,500-light-viewers,2000-light-viewers,ceiling}.toml)
    document=docs/LOAD.md
fi

# What figures are worth: where they are from, and what else the machine did.
provenance() {
    local changed=
    if [ -n "$(git status --porcelain)" ]; then changed=" with uncommitted changes"; fi
    printf 'Commit %s%s; %s; %s cores; load average %s before the first scenario.\n' \
        "$(git rev-parse --short HEAD)" "$changed" "$(date -u '+%Y-%m-%d %H:%M UTC')" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
}
printed=$(mktemp)
provenance >"$printed"

# The generated part of the document, between its marks, becomes what was printed.
keep() {
    local whole
    whole=$(mktemp)
    awk -v part="$printed" '
        /^<!-- to here -->$/ { inside = 0; ended = 1 }
        !inside { print }
        /^<!-- `make load` writes from here -->$/ {
            inside = begun = 1
            print ""
            while ((getline line < part) > 0) print line
            print ""
        }
        END { exit !(begun && ended) }' "$document" >"$whole" || { echo "$document has lost its marks" >&2; exit 1; }
    cat "$whole" >"$document"
    rm -f "$whole"
}

relay=
dir=
clean() {
    if [ -n "$relay" ]; then kill "$relay" 2>/dev/null && wait "$relay" || true; fi
    if [ -n "$dir" ]; then rm -rf "$dir"; fi
    relay= dir=
}
trap 'clean; rm -f "$printed"' EXIT

worst=0
for scenario in "${scenarios[@]}"; do
    dir=$(mktemp -d)
    name=$(basename "$scenario" .toml)
    # What a scenario needs beyond the limits of a usual node.
    node=()
    if [ -f "configs/load/nodes/$name.toml" ]; then node=(--config "configs/load/nodes/$name.toml"); fi
    taskset -c 0 "$trocar" up "${node[@]}" --dir "$dir/state" --port 0 --workers 1 --env-file "$dir/env" >/dev/null &
    relay=$!
    for _ in $(seq 100); do [ -s "$dir/env" ] && break; sleep 0.1; done
    # shellcheck disable=SC1091
    . "$dir/env"
    echo "== $scenario: relay on core 0, generator on core 1"
    status=0
    taskset -c 1 "$trocar" load run "$scenario" --invite "$TROCAR_INVITE_LOCAL" --ca "$TROCAR_CA" --relay-pid "$relay" --metrics "$TROCAR_METRICS" --plain \
        --html "$out/$name.html" --junit "$out/$name.xml" >"$out/$name.txt" || status=$?
    cat "$out/$name.txt"
    printf '\n`%s`, exit status %s:\n\n```text\n%s\n```\n' "$scenario" "$status" "$(cat "$out/$name.txt")" >>"$printed"
    echo "exit status $status, report $out/$name.html"
    if [ "$status" -gt "$worst" ]; then worst=$status; fi
    clean
done
if [ -n "$document" ]; then keep; fi
exit "$worst"
