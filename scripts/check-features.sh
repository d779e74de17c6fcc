#!/usr/bin/env bash
# Tests ask nothing more of a crate than the programs do. Where they do, cargo compiles that crate and everything above it twice, once for
# `make build` and once for `make test`: ten minutes on two cores when it was serde. The cure stands in media-tests/Cargo.toml.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Crates with their features, a line each.
features() { cargo tree --workspace --edges "$1" --prefix none --format '{p}|{f}' | sed 's/ (\*)$//' | sort -u; }

# Lines "crate: features" that the second list has and the first has not, of crates that both have.
more() {
    awk -F'|' '
        { count = split($2, list, ",") }
        FNR == NR { known[$1] = 1; for (i = 1; i <= count; i++) has[$1, list[i]] = 1; next }
        $1 in known { for (i = 1; i <= count; i++) if (!(($1, list[i]) in has)) missing[$1] = missing[$1] " " list[i] }
        END { for (crate in missing) print crate ":" missing[crate] }
    ' "$1" "$2" | sort
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
features normal,build >"$dir/programs"
features all >"$dir/tests"

# The control: a feature that only the second list has is found, and nothing else.
printf 'a|x\nb|\n' >"$dir/one"
printf 'a|x,y\nb|\nc|z\n' >"$dir/two"
[ "$(more "$dir/one" "$dir/two")" = "a: y" ] || fail "the comparison of features finds nothing"

found=$(more "$dir/programs" "$dir/tests")
[ -z "$found" ] || fail "tests ask more of these crates than the programs do; ask for it in media-tests/Cargo.toml too:
$found"
