#!/usr/bin/env bash
# Proves that `proto` is rules only: no runtime, socket, clock or random source.
# Its dependencies are on a list; its code names none of those things; and where the target wasm32-unknown-unknown is
# installed, it builds for a machine that has none of them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# serde and thiserror, their derive macros, and what those are made of; base64, which is bytes to text; Reed-Solomon, which
# is arithmetic over bytes: it looks which instructions the processor has, and fills its tables once.
allowed=(
    trocar-proto base64 serde serde_core serde_derive thiserror thiserror-impl proc-macro2 quote syn unicode-ident
    reed-solomon-simd cpufeatures fixedbitset once_cell
)

found=$(cargo tree --quiet --package trocar-proto --edges normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u)
strangers=$(grep -vxF -f <(printf '%s\n' "${allowed[@]}") <<<"$found" || true)
if [ -n "$strangers" ]; then
    fail "proto depends on crates that are not on the list: $(tr '\n' ' ' <<<"$strangers")"
fi

# Each file without its line comments and on one line, so that a `use` in braces over several lines is seen too.
impure='\bstd::(net|fs|io|env|process|thread|os)\b|\bstd::\{[^;]*\b(net|fs|io|env|process|thread|os)\b|\b(Instant|SystemTime|RandomState)\b|\b(rand|getrandom|tokio|async_std|smol)::'
bad=0
while IFS= read -r file; do
    if hits=$(sed 's|//.*||' "$file" | tr '\n' ' ' | grep -oE "$impure" | sort -u); then
        warn "$file: $(tr '\n' ' ' <<<"$hits")"
        bad=1
    fi
done < <(find proto/src -name '*.rs' | sort)
((bad == 0)) || fail "proto reaches for a clock, a socket, a thread or chance; values come in as arguments"

target=wasm32-unknown-unknown
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    cargo build --quiet --package trocar-proto --target "$target"
    say "proved by its dependencies, its code, and a build for $target"
else
    say "proved by its dependencies and its code ($target is not installed: \`rustup target add $target\`)"
fi
