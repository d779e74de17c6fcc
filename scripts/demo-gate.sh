# shellcheck shell=bash
# The demo's handover: an arm, its gate with the surgeon's console, and far away an expert who is a script and the eye
# that sees the picture for it. Sourced by scripts/demo.sh. What goes wrong here is said, and the picture goes on.
# shellcheck disable=SC2034,SC2154 # dir, log, pid, frame_proof and trocar are common to both files

gate_bin=${TROCAR_GATE_BIN:-$(dirname "$trocar")/trocar-gate}
arm_bin=${TROCAR_SIM_DEVICE_BIN:-$(dirname "$trocar")/trocar-sim-device}
arm_address=127.0.0.1:0
frames_address=
frame_proof=() # arguments of the publisher
pause=10       # seconds until somebody who was killed comes back
no_handover=   # why there is none

# quietly COMMAND...: shows what it said only where it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || { warn "demo: ${*:1:3}: $said" && return 1; }
}

# free_port: a TCP port of this machine, below those that the kernel hands out, on which nobody listens.
free_port() {
    local port n
    for n in {1..50}; do
        port=$((20000 + RANDOM % 10000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s' "$port" && return; }
    done
    warn "demo: no free port in $n tries"
    return 1
}

# Certificates of gate, camera and station, the patient's consent for this session, and the gate's configuration.
issue_papers() {
    quietly "$trocar" ca issue --dir "$dir" --role gate gate || return
    quietly "$trocar" ca issue --dir "$dir" --role station camera || return
    quietly "$trocar" ca issue --dir "$dir" --role station demo-expert || return
    quietly "$trocar" consent sign --dir "$dir" --session "${TROCAR_SESSION:?}"
}

configure_gate() {
    frames_address=127.0.0.1:$(free_port) || return
    cat >"$dir/gate.toml" <<TOML
# Written by scripts/demo.sh at each start. configs/gate.toml shows every key.
[session]
id = '$TROCAR_SESSION'
[identity]
cert = '$dir/gate.pem'
key = '$dir/gate.key'
[trust]
dir = '${TROCAR_GATE_TRUST:?}'
issuer = '${TROCAR_TOKEN_ISSUER:?}'
issuer_key = '${TROCAR_TOKEN_KEY:?}'
[[relay]]
address = '${TROCAR_CONTROL:?}'
[store]
dir = '$dir/gate-store'
[device]
kind = "udp"
address = '$arm_address'
key_file = '$dir/arm.key'
[frames]
listen = '$frames_address'
publishers = ["trocar://local/station/camera"]
[console]
terminal = false
page = "127.0.0.1:0"
page_link = '$dir/console.url'
[consent]
file = '$dir/consent.json'
TOML
    quietly "$gate_bin" check --config "$dir/gate.toml"
}

start_arm() {
    start arm "$dir/arm.log" "$arm_bin" --listen "$arm_address" --key-file "$dir/arm.key" --make-key \
        --state "$dir/arm.state" --record "$dir/arm.jsonl" --record-limit 16 --local-motion >"$dir/arm.out"
    ready arm "Starting the arm" grep -q '^listening on ' "$dir/arm.out" || return
    arm_address=$(sed -n 's/^listening on //p' "$dir/arm.out")
}

start_gate() {
    rm -f "$dir/console.url"
    start gate "$dir/gate.log" "$gate_bin" run --config "$dir/gate.toml" --console none >"$dir/gate.out"
    ready gate "Starting the gate" test -s "$dir/console.url" || return
    printf '%s\n' "${pid[gate]}" >"$dir/gate.pid"
}

# What the expert sees: frames that came whole, since nobody looks. A real station has a window here.
start_eye() {
    start eye "$dir/eye.log" "$trocar" watch --headless --invite "$TROCAR_INVITE_EXPERT" --ca "$TROCAR_CA" --feed scope \
        --name "Demo expert's screen" --echo-to "$dir/echo.sock" --echo-complete >"$dir/eye.out"
}

start_expert() {
    start expert "$dir/expert.log" "$trocar" operate --json --join "$TROCAR_INVITE_EXPERT" --ca "$TROCAR_CA" \
        --control "$TROCAR_CONTROL" --cert "$dir/demo-expert.pem" --key "$dir/demo-expert.key" --name "Demo expert" \
        --echo-from "$dir/echo.sock" --input script:scripts/demo-expert.jsonl \
        > >(grep --line-buffered -v -e '"event":"status"' -e '"event":"sent"' >"$dir/expert.jsonl")
    printf '%s\n' "${pid[expert]}" >"$dir/expert.pid"
    ready expert "Starting the expert" grep -qs '"event":"connected"' "$dir/expert.jsonl"
}

# give_up WHY: the rest of the demo goes on without an arm.
give_up() {
    no_handover=$1
    frame_proof=()
    local name
    for name in pause expert eye gate arm; do stop "$name" || true; done
}

start_operating_room() {
    local tries
    if [ ! -x "$gate_bin" ] || [ ! -x "$arm_bin" ]; then
        no_handover="$gate_bin or $arm_bin is not built: run \`make build\`"
    elif [ -z "${TROCAR_CONTROL:-}" ]; then
        no_handover="the relay has no control address"
    elif ! issue_papers; then
        no_handover="there are no certificates, or no consent"
    else
        : >"$dir/arm.jsonl"
        start_arm || { give_up "the arm does not run" && return; }
        # Somebody may take the free port first.
        for tries in 1 2 3; do
            configure_gate && start_gate && break
            if ((tries == 3)); then give_up "the gate does not run" && return; fi
        done
        frame_proof=(--frame-proof "$frames_address" --cert "$dir/camera.pem" --key "$dir/camera.key")
        printf 'TROCAR_CONSOLE="%s"\n' "$(<"$dir/console.url")" >>"$dir/up.env"
    fi
}

start_remote_expert() {
    [ -z "$no_handover" ] || return 0
    start_eye
    start_expert || give_up "the expert's station does not run"
}

print_handover() {
    say ""
    if [ -n "$no_handover" ]; then
        say "The handover is not part of this demo: $no_handover."
        return
    fi
    say "Hand over control of a simulated arm. You are the surgeon beside it; the expert is a script:"
    say ""
    printf '  %-12s %s\n' console "$(<"$dir/console.url")" \
        "" "TAKE. OFFER to demo-expert: instruments. When all link gates are green: CONFIRM." \
        "" "Every open page says now who has control." \
        "the arm" "$arm_bin --follow $dir/arm.jsonl      (draws it in another terminal)" \
        "kill" "kill -9 \$(cat $dir/expert.pid)      The arm holds, every page says so. TAKE." \
        "afterwards" "$trocar audit show $dir/gate-store"
    say ""
}

# Somebody of the handover was killed, as the demo invites to: says so, and brings them back after a while.
mend_handover() {
    local name
    [ -z "$no_handover" ] || return 0
    for name in pause expert eye gate arm; do
        if [ -z "${pid[$name]:-}" ]; then
            [ "$name" = pause ] || [ -n "${pid[pause]:-}" ] || revive "$name"
        elif ! alive "$name"; then
            mourn "$name"
        fi
    done
}

mourn() {
    local status=0
    wait "${pid[$1]}" || status=$?
    unset "pid[$1]"
    [ "$1" = pause ] && return
    case $1 in
    expert | eye) say "The $1 is gone ($status). The arm holds as soon as the gate misses it. Look at the pages; TAKE." ;;
    gate) say "The gate is gone ($status). The arm holds by its own watchdog while the expert has it; pages say unknown." ;;
    arm) say "The arm is gone ($status). The gate hears nothing from it." ;;
    esac
    say "The $1 comes back in $pause s."
    sleep "$pause" &
    pid[pause]=$!
    log[pause]=/dev/null
}

revive() {
    case $1 in
    arm) start_arm ;;
    gate) start_gate && say "  console      $(<"$dir/console.url")" ;;
    eye) start_eye ;;
    expert) start_expert ;;
    esac && return
    give_up "the $1 does not come back"
    say "The handover is over for this demo: $no_handover."
}
