#!/usr/bin/env bash
# The whole system on this machine: relay and signaling in one process, a publisher that sends a picture, and an arm
# that can be handed over (scripts/demo-gate.sh). Prints where to look, runs until Ctrl-C, stops everything. `make demo`
# builds first and then runs this.
#
#   DEMO_SIZE               auto (default: the largest that this machine encodes live), 720p, 1080p,
#                           or 2160p (replays a fixture that is made once)
#   DEMO_PORT               the page's port, where the default is taken
#   DEMO_DIR                where keys, database and logs go (default var/demo)
#   DEMO_EXIT_AFTER_READY   1: stop cleanly as soon as packets flow, for tests
set -euo pipefail
started=$EPOCHREALTIME
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

trocar=${TROCAR_BIN:-target/debug/trocar}
dir=${DEMO_DIR:-var/demo}
size=${DEMO_SIZE:-auto}
patience=30 # seconds that a child has to get ready
grace=10    # seconds that a child has to stop

case $size in auto | 720p | 1080p | 2160p) ;; *) fail "DEMO_SIZE is '$size': auto, 720p, 1080p or 2160p" ;; esac
[ -x "$trocar" ] || fail "$trocar is not built yet: run \`make demo\`"

# Links and keys are for whoever runs this, and nobody else.
umask 077
mkdir -p "$dir"
# The children inherit the lock, so it also names a demo whose script was killed and that still runs.
exec 9>"$dir/.lock"
flock -n 9 || fail "a demo is running in $dir already; stop it, or choose another DEMO_DIR and DEMO_PORT"

declare -A pid=() log=()
# In this order they stop: the expert lets go before the gate ends, the publisher takes its leave before the relay goes.
stop_order=(pause expert eye gate arm publisher trocar)

alive() { [ -n "${pid[$1]:-}" ] && kill -0 "${pid[$1]}" 2>/dev/null; }

# start NAME LOG COMMAND...: in a session of its own: Ctrl-C reaches this script alone, which then stops them in order. Where
# the script itself is killed, they are told to stop all the same.
start() {
    local name=$1
    log[$name]=$2
    shift 2
    setpriv --pdeathsig TERM setsid "$@" 2>"${log[$name]}" &
    pid[$name]=$!
}

# last_words NAME FATE: what became of a child, and what it had to say.
last_words() {
    warn "demo: $1 $2. The end of ${log[$1]}:"
    tail -n 20 "${log[$1]}" | sed 's/^/    /' >&2
}

# ended NAME: waits for a child that is gone, and says with what status it ended.
ended() {
    local status=0
    wait "${pid[$1]}" || status=$?
    unset "pid[$1]"
    last_words "$1" "ended with status $status"
}

# stop NAME: asks, waits, insists; says so when it did not end well.
stop() {
    local name=$1 deadline=$((SECONDS + grace)) status=0
    [ -n "${pid[$name]:-}" ] || return 0
    kill -TERM "${pid[$name]}" 2>/dev/null || true
    while alive "$name" && ((SECONDS < deadline)); do sleep 0.05; done
    if alive "$name"; then
        warn "demo: $name did not stop within $grace s and is killed"
        kill -KILL "${pid[$name]}" 2>/dev/null || true
    fi
    wait "${pid[$name]}" || status=$?
    unset "pid[$name]"
    case $status in
    0 | 130 | 143) ;;
    *)
        last_words "$name" "ended with status $status"
        return 1
        ;;
    esac
}

stop_all() {
    local name result=0
    for name in "${stop_order[@]}"; do stop "$name" || result=1; done
    return $result
}

# Whatever way this script ends, its children end first.
at_exit() {
    local status=$?
    trap '' INT TERM HUP
    stop_all || status=1
    exit "$status"
}
trap at_exit EXIT
trap 'say ""; say "Stopping."; exit 0' INT TERM HUP

# ready NAME WHAT TEST...: waits until TEST succeeds. False, and says why, where that child ends or patience does.
ready() {
    local name=$1 what=$2 deadline=$((SECONDS + patience)) dotted=$SECONDS
    shift 2
    printf '%s ' "$what"
    until "$@"; do
        if ! alive "$name"; then
            say "failed"
            ended "$name"
            return 1
        elif ((SECONDS >= deadline)); then
            say "failed"
            last_words "$name" "was not ready within $patience s"
            return 1
        fi
        if ((SECONDS > dotted)); then
            printf '.'
            dotted=$SECONDS
        fi
        sleep 0.05
    done
    say "ok"
}

# read_env FILE: sets the TROCAR_ variables of KEY="value" lines. Nothing in the file is run.
read_env() {
    local line
    while IFS= read -r line; do
        if [[ $line =~ ^(TROCAR_[A-Z0-9_]+)=\"(.*)\"$ ]]; then printf -v "${BASH_REMATCH[1]}" '%s' "${BASH_REMATCH[2]}"; fi
    done <"$1"
}

start_trocar() {
    local port=()
    if [ -n "${DEMO_PORT:-}" ]; then port=(--port "$DEMO_PORT"); fi
    rm -f "$dir/up.env"
    start trocar "$dir/up.log" "$trocar" up --json --dir "$dir" --env-file "$dir/up.env" "${port[@]}" >"$dir/up.json"
    ready trocar "Starting relay and signaling" test -f "$dir/up.env" || exit 1
    read_env "$dir/up.env"
    : "${TROCAR_PAGE:?is missing in $dir/up.env}" "${TROCAR_CA:?is missing in $dir/up.env}"
    : "${TROCAR_INVITE_LOCAL:?is missing in $dir/up.env}"
}

start_publisher() {
    local source=(--source test --size "$size")
    if [ "$size" = 2160p ]; then source=(--source "file:$(scripts/fixtures.sh path scope)" --loop --passthrough); fi
    # frame_proof: scripts/demo-gate.sh
    # shellcheck disable=SC2154
    start publisher "$dir/publish.log" "$trocar" publish --invite "$TROCAR_INVITE_LOCAL" --ca "$TROCAR_CA" \
        --feed scope "${source[@]}" "${frame_proof[@]}" >"$dir/publish.out"
    ready publisher "Starting the publisher ($size)" grep -q '^publishing ' "$dir/publish.out" || exit 1
}

print_addresses() {
    local role key
    say ""
    say "The picture is live ($(since "$started")). Open one of these in a browser:"
    say ""
    for role in expert observer coordinator engineer recorder local; do
        key=TROCAR_INVITE_${role^^}
        if [ -n "${!key:-}" ]; then printf '  %-12s %s\n' "$role" "${!key}"; fi
    done
    say ""
    printf '  %-12s %s\n' page "$TROCAR_PAGE"
    if [ -n "${TROCAR_HTTPS:-}" ]; then
        printf '  %-12s %s\n' "over TLS" "$TROCAR_HTTPS  (certificate authority: $TROCAR_CA)"
    fi
    printf '  %-12s %s\n' logs "${log[trocar]}  ${log[publisher]}"
    say ""
    sed -n 's/^publishing /  sending      /p' "$dir/publish.out" | head -n 1
}

# shellcheck source=scripts/demo-gate.sh
source scripts/demo-gate.sh

if [ "$size" = 2160p ]; then scripts/fixtures.sh scope; fi
start_trocar
start_operating_room
start_publisher
start_remote_expert
print_addresses
print_handover
if [ "${DEMO_EXIT_AFTER_READY:-0}" = 1 ]; then
    say "DEMO_EXIT_AFTER_READY: stopping."
    exit 0
fi
say "Ctrl-C stops everything."
while :; do
    # Bash's own word on a child that was killed says nothing that is not said below.
    wait -n "${pid[@]}" 2>/dev/null || true
    for name in trocar publisher; do
        alive "$name" && continue
        ended "$name"
        exit 1
    done
    mend_handover
done
