#!/usr/bin/env bash
# Installs the clients that nobody here wrote, for `make interop` and for the tests. Quick when they are there.
#
#   foreign.sh       all of them: Python's, Firefox, and GStreamer's Rust plugins (16 CPU-minutes, once)
#   foreign.sh test  what `make test` runs: aiortc and ffmpeg
#
# What is not Debian's goes below the cache (TROCAR_CACHE, by default ~/.cache/trocar): venv, foreign-gst.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

tier=${1:-all}
case $tier in all | test) ;; *) fail "unknown tier '$tier': all or test" ;; esac
cache=${TROCAR_CACHE:-$HOME/.cache/trocar}
mkdir -p "$cache"

wanted=(ffmpeg python3-venv)
if [ "$tier" = all ]; then
    wanted+=(firefox-esr chromium gstreamer1.0-nice python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-rtsp-server-1.0 iproute2
        util-linux)
fi
missing=()
for name in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing+=("$name")
done
if ((${#missing[@]})); then
    say "Installing foreign clients with apt-get: ${missing[*]}"
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=500
        -o Dpkg::Use-Pty=0 install -y --no-install-recommends)
    "${install[@]}" "${missing[@]}" </dev/null || {
        "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=500 update </dev/null
        "${install[@]}" "${missing[@]}" </dev/null || fail "apt-get could not install: ${missing[*]}"
    }
fi

# The virtual environment is made again when what it should hold changes.
requirements=media-tests/foreign/requirements.txt
if ! cmp -s "$requirements" "$cache/venv/requirements.txt"; then
    say "Installing the Python clients of $requirements."
    [ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
    "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$cache/venv/requirements.txt"
fi

if [ "$tier" = all ]; then
    if [ ! -d media-tests/browser/node_modules/playwright-core ]; then
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix media-tests/browser --no-audit --no-fund
    fi
    [ -x "$cache/foreign-gst/debug/trocar-foreign-gst" ] ||
        say "Building GStreamer's Rust plugins (16 CPU-minutes, once)."
    CARGO_TARGET_DIR="$cache/foreign-gst" nice -n 19 cargo build --quiet --locked -j1 \
        --manifest-path media-tests/foreign/gst/Cargo.toml
fi
