#!/usr/bin/env bash
# Load tests on one machine, by hand: `make load`. Each scenario against a relay of its own; relay and generator are pinned apart.
#   scripts/load.sh [SCENARIO…]
set -euo pipefail
cd "$(dirname "$0")/.."

trocar=target/debug/trocar
out=var/artifacts/load
mkdir -p "$out"
scenarios=("$@")
if [ ${#scenarios[@]} -eq 0 ]; then
    scenarios=(configs/load/4k-16-viewers.toml configs/load/500-light-viewers.toml configs/load/ceiling.toml)
fi

relay=
dir=
clean() {
    if [ -n "$relay" ]; then kill "$relay" 2>/dev/null && wait "$relay" || true; fi
    if [ -n "$dir" ]; then rm -rf "$dir"; fi
    relay= dir=
}
trap clean EXIT

worst=0
for scenario in "${scenarios[@]}"; do
    dir=$(mktemp -d)
    taskset -c 0 "$trocar" up --dir "$dir/state" --port 0 --workers 1 --env-file "$dir/env" >/dev/null &
    relay=$!
    for _ in $(seq 100); do [ -s "$dir/env" ] && break; sleep 0.1; done
    # shellcheck disable=SC1091
    . "$dir/env"
    name=$(basename "$scenario" .toml)
    echo "== $scenario: relay on core 0, generator on core 1"
    status=0
    taskset -c 1 "$trocar" load run "$scenario" --invite "$TROCAR_INVITE_LOCAL" --ca "$TROCAR_CA" --relay-pid "$relay" --plain \
        --html "$out/$name.html" --junit "$out/$name.xml" || status=$?
    echo "exit status $status, report $out/$name.html"
    if [ "$status" -gt "$worst" ]; then worst=$status; fi
    clean
done
exit "$worst"
