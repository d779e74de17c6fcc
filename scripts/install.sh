#!/usr/bin/env bash
# Puts the binary, its man pages, completions, services and an example configuration into the system, or takes them away.
#
#   install.sh install     PREFIX (/usr/local), SYSCONFDIR (/etc) and DESTDIR (none) say where to
#   install.sh uninstall   the same places; configuration and state stay
#   install.sh stage DIR   what the Debian package is made of: pages, completions, configuration
#
# PROFILE is the build that is taken: release (built here), or dev as it lies in target/debug or TROCAR_BIN names it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

what=${1:-install}
prefix=${PREFIX:-/usr/local}
sysconfdir=${SYSCONFDIR:-/etc}
destdir=${DESTDIR:-}
profile=${PROFILE:-release}
state=/var/lib/trocar
units=(trocar.service trocar-publish@.service)

[[ $prefix == /* && $sysconfdir == /* ]] || fail "PREFIX and SYSCONFDIR are absolute paths"
if [[ -n $destdir && $destdir != /* ]]; then fail "DESTDIR is an absolute path"; fi

# The binary of the chosen profile; release is built where it is not up to date.
binary() {
    case $profile in
    release)
        cargo build --quiet --release --package trocar --bin trocar >&2
        say target/release/trocar
        ;;
    dev) say "${TROCAR_BIN:-target/debug/trocar}" ;;
    *) fail "PROFILE=$profile: release or dev" ;;
    esac
}

# The shipped example, with the state where a service keeps it.
example() {
    sed -e "s|^dir = \"[^\"]*\" *#|dir = \"$state\"              #|" \
        -e "s|trocar up --config configs/trocar.toml|trocar up --config $sysconfdir/trocar/trocar.toml|" configs/trocar.toml
}

# What the binary writes about itself.
stage() {
    local bin=$1 to=$2
    rm -rf "$to"
    mkdir -p "$to/man" "$to/completions"
    "$bin" manual "$to/man"
    "$bin" completions bash >"$to/completions/trocar"
    "$bin" completions zsh >"$to/completions/_trocar"
    "$bin" completions fish >"$to/completions/trocar.fish"
    example >"$to/trocar.toml"
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
    local bin staged unit page
    bin=$(binary)
    [ -x "$bin" ] || fail "$bin is not there: build it first (PROFILE=$profile)"
    staged=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$staged'" EXIT
    stage "$bin" "$staged/files"
    put 755 "$bin" "$prefix/bin/trocar"
    for page in "$staged"/files/man/*.1; do
        gzip -9n "$page"
        put 644 "$page.gz" "$man/$(basename "$page").gz"
    done
    put 644 "$staged/files/completions/trocar" "$bash_completions/trocar"
    put 644 "$staged/files/completions/_trocar" "$zsh_completions/_trocar"
    put 644 "$staged/files/completions/trocar.fish" "$fish_completions/trocar.fish"
    for unit in "${units[@]}"; do
        sed -e "s|/usr/bin/trocar|$prefix/bin/trocar|" -e "s|/etc/trocar|$sysconfdir/trocar|g" \
            "configs/systemd/$unit" >"$staged/$unit"
        put 644 "$staged/$unit" "$unit_dir/$unit"
    done
    put 644 configs/sysctl/60-trocar.conf "$sysctl_dir/60-trocar.conf"
    for page in README.md LICENSE LICENSE-APACHE LICENSE-MIT docs/INSTALL.md docs/OPERATING.md configs/or-room.toml; do
        put 644 "$page" "$doc/$(basename "$page")"
    done
    if [ -e "$destdir$sysconfdir/trocar/trocar.toml" ]; then
        say "$destdir$sysconfdir/trocar/trocar.toml is there and stays as it is"
    else
        put 644 "$staged/files/trocar.toml" "$sysconfdir/trocar/trocar.toml"
    fi
    say "installed $destdir$prefix/bin/trocar ($("$bin" --version))"
    # Into this system, not into a folder that is to be packed.
    if [ -z "$destdir" ]; then
        if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
        say "next: sysctl --system; systemctl enable --now trocar (docs/INSTALL.md)"
    fi
}

uninstall_all() {
    local unit
    if [ -z "$destdir" ] && [ -d /run/systemd/system ] && systemctl --quiet is-active trocar; then
        fail "trocar is running: stop it first (systemctl disable --now trocar), for this would end pictures"
    fi
    rm -f "$destdir$prefix/bin/trocar" "$destdir$man"/trocar.1.gz "$destdir$man"/trocar-*.1.gz \
        "$destdir$bash_completions/trocar" "$destdir$zsh_completions/_trocar" "$destdir$fish_completions/trocar.fish" \
        "$destdir$sysctl_dir/60-trocar.conf"
    for unit in "${units[@]}"; do rm -f "$destdir$unit_dir/$unit"; done
    rm -rf "$destdir$doc"
    say "removed; $destdir$sysconfdir/trocar and $destdir$state stay: they hold settings and secrets"
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
}

places
case $what in
install) install_all ;;
uninstall) uninstall_all ;;
stage) stage "$(binary)" "${2:?stage needs a folder}" ;;
*) fail "unknown '$what': install, uninstall or stage" ;;
esac
