#!/usr/bin/env bash
# Puts the programs, their man pages, completions, services and example configurations into the system, or takes them away.
#
#   install.sh install     PREFIX (/usr/local), SYSCONFDIR (/etc) and DESTDIR (none) say where to
#   install.sh uninstall   the same places; configuration and state stay
#   install.sh stage DIR   what the Debian package is made of: pages, completions, configuration
#
# PROFILE is the build that is taken: release (built here), or dev as it lies in target/debug or beside TROCAR_BIN.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

what=${1:-install}
prefix=${PREFIX:-/usr/local}
sysconfdir=${SYSCONFDIR:-/etc}
destdir=${DESTDIR:-}
profile=${PROFILE:-release}
state=/var/lib/trocar
gate_state=/var/lib/trocar-gate
gate_credentials=/run/credentials/trocar-gate.service
units=(trocar.service trocar-relay.service trocar-publish@.service trocar-gate.service)
# Relay and native clients; a relay apart; the gate; the simulated device.
programs=(trocar trocar-relay trocar-gate trocar-sim-device)
configurations=(trocar.toml relay.toml gate.toml)

[[ $prefix == /* && $sysconfdir == /* ]] || fail "PREFIX and SYSCONFDIR are absolute paths"
if [[ -n $destdir && $destdir != /* ]]; then fail "DESTDIR is an absolute path"; fi

# The folder with the programs of the chosen profile; release is built where it is not up to date.
binaries() {
    case $profile in
    release)
        cargo build --quiet --release --package trocar --bin trocar >&2
        cargo build --quiet --release --package trocar-relay --bin trocar-relay >&2
        cargo build --quiet --release --package trocar-gate --bins >&2
        say target/release
        ;;
    dev) dirname "${TROCAR_BIN:-target/debug/trocar}" ;;
    *) fail "PROFILE=$profile: release or dev" ;;
    esac
}

# The shipped examples, with state and keys where a service has them.
example() {
    sed -e "s|^dir = \"[^\"]*\" *#|dir = \"$state\"              #|" \
        -e "s|trocar up --config configs/trocar.toml|trocar up --config $sysconfdir/trocar/trocar.toml|" configs/trocar.toml
}

relay_example() {
    local own=$sysconfdir/trocar/relay
    sed -e "s|trocar-relay run --config configs/cluster/relay.toml|trocar-relay run --config $sysconfdir/trocar/relay.toml|" \
        -e "s|^\(cert = \)\"[^\"]*\" *#|\1\"$own/relay.pem\" #|" \
        -e "s|^\(key = \)\"[^\"]*\"|\1\"$own/relay.key\"|" \
        -e "s|^\(trust = \)\"[^\"]*\" *#|\1\"$own/trust/ca.pem\" #|" \
        -e "s|^# \(issuer_key = \)\"[^\"]*\"|# \1\"$own/token-key.pub\"|" configs/cluster/relay.toml
}

gate_example() {
    local own=$sysconfdir/trocar/gate
    sed -e "s|trocar-gate run --config configs/gate.toml|trocar-gate run --config $sysconfdir/trocar/gate.toml|" \
        -e "s|^\(cert = \)\"[^\"]*\" *#|\1\"$gate_credentials/gate.pem\" #|" \
        -e "s|^\(key = \)\"[^\"]*\"|\1\"$gate_credentials/gate.key\"|" \
        -e "s|^\(key_file = \)\"[^\"]*\" *#|\1\"$gate_credentials/device.key\" #|" \
        -e "s|^\(dir = \)\"var/gate/trust\" *#|\1\"$own/trust\" #|" \
        -e "s|^\(issuer_key = \)\"[^\"]*\" *#|\1\"$own/token-key.pub\" #|" \
        -e "s|^\(dir = \)\"var/gate/store\" *#|\1\"$gate_state/store\" #|" \
        -e "s|^\(file = \)\"[^\"]*\" *#|\1\"$own/consent.json\" #|" \
        -e "s|^terminal = true |terminal = false|" \
        -e "s|^# \(page_link = \)\"[^\"]*\" *#|\1\"/run/trocar-gate/page.url\" #|" configs/gate.toml
}

# What the programs write about themselves.
stage() {
    local from=$1 to=$2 program
    rm -rf "$to"
    mkdir -p "$to/man" "$to/completions"
    "$from/trocar" manual "$to/man"
    "$from/trocar-relay" manual "$to/man"
    "$from/trocar-gate" manual "$to/man"
    for program in "${programs[@]}"; do
        completions bash "$program" >"$to/completions/$program"
        completions zsh "$program" >"$to/completions/_$program"
        completions fish "$program" >"$to/completions/$program.fish"
    done
    example >"$to/trocar.toml"
    relay_example >"$to/relay.toml"
    gate_example >"$to/gate.toml"
}

# completions SHELL PROGRAM, of `stage`: those of the simulated device come from the gate too.
completions() {
    case $2 in
    trocar | trocar-relay) "$from/$2" completions "$1" ;;
    *) "$from/trocar-gate" completions "$1" "$2" ;;
    esac
}

# put MODE FILE TARGET: one file under DESTDIR, with its folders.
put() { install -D -m "$1" "$2" "$destdir$3"; }

places() {
    man=$prefix/share/man/man1
    bash_completions=$prefix/share/bash-completion/completions
    zsh_completions=$prefix/share/zsh/site-functions
    fish_completions=$prefix/share/fish/vendor_completions.d
    unit_dir=$prefix/lib/systemd/system
    sysctl_dir=$prefix/lib/sysctl.d
    doc=$prefix/share/doc/trocar
}

install_all() {
    local from staged program unit page settings
    from=$(binaries)
    for program in "${programs[@]}"; do
        [ -x "$from/$program" ] || fail "$from/$program is not there: build it first (PROFILE=$profile)"
    done
    staged=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$staged'" EXIT
    stage "$from" "$staged/files"
    for page in "$staged"/files/man/*.1; do
        gzip -9n "$page"
        put 644 "$page.gz" "$man/$(basename "$page").gz"
    done
    for program in "${programs[@]}"; do
        put 755 "$from/$program" "$prefix/bin/$program"
        put 644 "$staged/files/completions/$program" "$bash_completions/$program"
        put 644 "$staged/files/completions/_$program" "$zsh_completions/_$program"
        put 644 "$staged/files/completions/$program.fish" "$fish_completions/$program.fish"
    done
    for unit in "${units[@]}"; do
        sed -e "s|/usr/bin/trocar|$prefix/bin/trocar|" -e "s|/etc/trocar|$sysconfdir/trocar|g" \
            "configs/systemd/$unit" >"$staged/$unit"
        put 644 "$staged/$unit" "$unit_dir/$unit"
    done
    put 644 configs/sysctl/60-trocar.conf "$sysctl_dir/60-trocar.conf"
    for page in README.md LICENSE LICENSE-APACHE LICENSE-MIT docs/INSTALL.md docs/OPERATING.md docs/DEVICES.md docs/CLUSTER.md \
        configs/or-room.toml; do
        put 644 "$page" "$doc/$(basename "$page")"
    done
    for settings in "${configurations[@]}"; do
        if [ -e "$destdir$sysconfdir/trocar/$settings" ]; then
            say "$destdir$sysconfdir/trocar/$settings is there and stays as it is"
        else
            put 644 "$staged/files/$settings" "$sysconfdir/trocar/$settings"
        fi
    done
    say "installed $destdir$prefix/bin/trocar ($("$from/trocar" --version)), trocar-relay, trocar-gate and trocar-sim-device (a simulator)"
    # Into this system, not into a folder that is to be packed.
    if [ -z "$destdir" ]; then
        if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
        say "next: sysctl --system; systemctl enable --now trocar (docs/INSTALL.md)"
    fi
}

uninstall_all() {
    local unit program
    for unit in trocar trocar-relay trocar-gate; do
        if [ -z "$destdir" ] && [ -d /run/systemd/system ] && systemctl --quiet is-active "$unit"; then
            fail "$unit is running: stop it first (systemctl disable --now $unit), for this would end pictures or an operation"
        fi
    done
    for program in "${programs[@]}"; do
        rm -f "$destdir$prefix/bin/$program" "$destdir$bash_completions/$program" \
            "$destdir$zsh_completions/_$program" "$destdir$fish_completions/$program.fish"
    done
    rm -f "$destdir$man"/trocar.1.gz "$destdir$man"/trocar-*.1.gz "$destdir$sysctl_dir/60-trocar.conf"
    for unit in "${units[@]}"; do rm -f "$destdir$unit_dir/$unit"; done
    rm -rf "$destdir$doc"
    say "removed; $destdir$sysconfdir/trocar, $destdir$state and $destdir$gate_state stay: they hold settings, secrets and records"
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
}

places
case $what in
install) install_all ;;
uninstall) uninstall_all ;;
stage) stage "$(binaries)" "${2:?stage needs a folder}" ;;
*) fail "unknown '$what': install, uninstall or stage" ;;
esac
