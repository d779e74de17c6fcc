#!/usr/bin/env bash
# Everything that can be said about the tree without running it. Goes on after a failure, and names the failures at the
# end. `make check` installs first and then runs this.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

failed=()
# step NAME COMMAND...: runs it, shows how long it took, remembers when it failed.
step() {
    local name=$1 started=$EPOCHREALTIME
    shift
    say "== $name"
    if "$@"; then
        say "   ok ($(since "$started"))"
    else
        say "   FAILED ($(since "$started"))"
        failed+=("$name")
    fi
}

page_types() {
    if [ ! -f signaling/web/package.json ]; then
        say "there is no page yet"
        return
    fi
    npm run --silent typecheck --prefix signaling/web
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps; }

# The list of known holes is fetched from its own repository. Where that cannot be reached the rest still counts.
advisories() {
    if ! timeout 60 cargo deny --log-level error fetch db </dev/null >/dev/null 2>&1; then
        say "left out: the RustSec advisory database could not be fetched from here"
        return
    fi
    cargo deny --log-level error check --disable-fetch advisories
}

step "formatting" cargo fmt --all --check
step "sizes of files" scripts/check-sizes.sh
step "no crate is compiled twice" scripts/check-features.sh
step "proto is pure" scripts/check-proto-pure.sh
step "handover: every requirement has a test" scripts/requirements.sh
step "types of the page" page_types
step "clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
step "docs" docs
# What must not compile is shown in the documentation; the test runner does not run that.
step "examples in the documentation" cargo test --quiet --doc --package trocar-relay
step "dependencies: bans, licences, sources" cargo deny --log-level error check bans licenses sources
step "dependencies: known holes" advisories

if ((${#failed[@]})); then
    printf -v list ', %s' "${failed[@]}"
    fail "failed: ${list#, }"
fi
