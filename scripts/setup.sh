#!/usr/bin/env bash
# Brings a Debian machine to where the tree builds. Says what is missing and why, then installs it; says nothing when
# nothing is missing.
#
#   setup.sh run    what `make build` and `make demo` need
#   setup.sh test   that, and what `make test` needs
#   setup.sh check  what `make build` and `make check` need
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

tier=${1:-run}
case $tier in run | test | check) ;; *) fail "unknown tier '$tier': run, test or check" ;; esac

node_min=18
nextest_version='~0.9'
deny_version='~0.20'

# What a set of packages is for, then the packages.
wanted=(
    "the picture: GStreamer's tools, elements and codecs|gstreamer1.0-tools gstreamer1.0-plugins-base
        gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x
        gstreamer1.0-alsa"
    "GStreamer's headers, which the Rust bindings build against|libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
        libgstreamer-plugins-bad1.0-dev pkg-config"
    "C and C++ for the cryptography and SQLite inside|gcc g++ cmake make"
    "fetching sources and packages|git curl ca-certificates"
    "network addresses and links|iproute2"
)

node_is_new_enough() {
    local version
    version=$(node --version 2>/dev/null) || return 1
    version=${version#v}
    ((${version%%.*} >= node_min))
}

needs_node=0
if ! node_is_new_enough; then
    wanted+=("the page: its bundler runs on Node $node_min or newer|nodejs npm")
    needs_node=1
elif ! command -v npm >/dev/null; then
    wanted+=("the page: its packages come with npm|npm")
fi
if [ "$tier" = test ]; then
    wanted+=(
        "the page's tests run in a real browser, which shows Japanese too|chromium fonts-noto-cjk"
        "ICE servers are tested with a real one, under a real authority's trust|coturn ca-certificates"
        "foreign clients and encoders: aiortc, ffmpeg, RTSP|python3-venv ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0"
        "windows are tested on a display without a screen|xvfb x11-apps imagemagick"
        "wall clocks that jump are tested with a clock of their own|faketime"
        "instructions per packet are counted in the tests|valgrind"
        "live views are looked at on a terminal that nobody sits at|tmux"
        "the services are checked as systemd would read them|systemd"
        "alert rules are tested with promtool|prometheus"
        "sound devices are tested with a sound server of their own|pulseaudio libasound2-plugins"
        "audit records are sent to a real repository, and checked against their schema|rsyslog rsyslog-gnutls rsyslog-openssl libxml2-utils"
        "what the listeners offer is tried by a client that nobody here wrote|openssl"
        "a machine that hears nothing is tested with a packet filter|nftables"
        "the line test is held against the tools that people know|iperf3 srt-tools"
    )
    if ! scripts/fixtures.sh has natural && ! python3 -m pip --version >/dev/null 2>&1; then
        wanted+=("a natural video for the tests is inside a Python package|python3-pip")
    fi
fi

installed_packages() {
    # Names that dpkg does not know make it exit with 1; what it prints is right all the same.
    dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | awk '$2 == "installed" { print $1 }' || true
}

# Fills `missing` with package names and `table` with one line per purpose.
find_missing() {
    local entry names name have lines=() all=()
    for entry in "${wanted[@]}"; do
        read -rd '' -a names <<<"${entry#*|}" || true
        all+=("${names[@]}")
    done
    have=" $(installed_packages "${all[@]}" | tr '\n' ' ')"
    missing=()
    table=()
    for entry in "${wanted[@]}"; do
        read -rd '' -a names <<<"${entry#*|}" || true
        lines=()
        for name in "${names[@]}"; do
            [[ $have == *" $name "* ]] || lines+=("$name")
        done
        ((${#lines[@]})) || continue
        missing+=("${lines[@]}")
        table+=("  ${entry%%|*}:" "      ${lines[*]}")
    done
}

apt() {
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "these packages need root, and there is no sudo: ${missing[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=500 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

install_packages() {
    local updated=0 size
    say "Debian packages that are missing on this machine, and what they are for:"
    printf '%s\n' "${table[@]}"
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        apt update
        updated=1
    fi
    size=$(apt-get install -s --no-install-recommends "${missing[@]}" 2>/dev/null | grep -c '^Inst ') || size='?'
    say "Installing them with apt-get ($size packages with what they depend on)."
    if ! apt install -y --no-install-recommends "${missing[@]}"; then
        ((updated == 0)) || fail "apt-get could not install: ${missing[*]}"
        # The lists of this machine may name versions that the mirror has replaced since.
        apt update
        apt install -y --no-install-recommends "${missing[@]}" || fail "apt-get could not install: ${missing[*]}"
    fi
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    find_missing
    if ((${#missing[@]})); then install_packages; fi
elif ! pkg-config --exists 'gstreamer-1.0 >= 1.22' 2>/dev/null; then
    warn "This is not a Debian system, so nothing is installed for you. Needed, by Debian's names:"
    printf '%s\n' "${wanted[@]}" | sed 's/^.*|//' | xargs -n 6 >&2
    fail "GStreamer 1.22 or newer was not found by pkg-config"
fi
if ((needs_node)) && ! node_is_new_enough; then
    fail "node is $(node --version 2>/dev/null || echo missing), and the page's bundler needs $node_min or newer"
fi

# Rust.
command -v cargo >/dev/null ||
    fail "there is no cargo here: install Rust from https://rustup.rs, then run this again"
rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust_have=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$rust_min" "$rust_have" | sort -V | head -n 1)" != "$rust_min" ]; then
    fail "rustc is $rust_have and this tree needs $rust_min: run \`rustup update stable\`"
fi
if [ "$tier" = check ]; then
    cargo fmt --version >/dev/null 2>&1 || fail "cargo fmt is missing: run \`rustup component add rustfmt\`"
    cargo clippy --version >/dev/null 2>&1 || fail "cargo clippy is missing: run \`rustup component add clippy\`"
fi

# cargo_tool NAME VERSION WHY: installs a cargo subcommand from its published source where it is missing.
cargo_tool() {
    if command -v "cargo-$1" >/dev/null; then return; fi
    say "cargo-$1 is missing ($3): building it from crates.io, which takes some minutes."
    cargo install --locked "cargo-$1" --version "$2"
}
case $tier in
test) cargo_tool nextest "$nextest_version" "it runs the tests" ;;
check) cargo_tool deny "$deny_version" "it checks licences, bans and sources of the dependencies" ;;
esac

# node_packages FOLDER WHY: what the folder's lock file names, when it is not there or older than the lock file.
node_packages() {
    if [ ! -f "$1/package-lock.json" ] || [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ]; then
        return
    fi
    say "Installing the packages of $1 ($2)."
    npm ci --prefix "$1" --no-audit --no-fund
}
node_packages signaling/web "the page's bundler and types"
if [ "$tier" = test ]; then
    # The browser is Debian's: no download of one.
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 node_packages media-tests/browser "the driver of the browser tests"
    scripts/foreign.sh test
fi
