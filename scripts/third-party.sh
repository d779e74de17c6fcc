#!/usr/bin/env bash
# The licences of the crates that are linked into `trocar`, as a package that is handed on has to carry them: a list, then
# each text once, with the crates that it is of. To standard output.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

sources=("${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/)
crates=$(cargo tree --locked --package trocar --edges normal --prefix none --format '{p}|{l}' |
    sed -e 's/ (proc-macro)//' -e 's/ v/-/' | grep -v '^trocar' | grep -v ' (' | sort -u)

say "Crates that are linked into trocar, and their licences"
say
say "${crates//|/  }"

declare -A whose text
order=()
while IFS='|' read -r crate _; do
    for folder in "${sources[@]}"; do
        for file in "$folder$crate"/{LICENSE,LICENCE,COPYING,NOTICE,COPYRIGHT}* "$folder$crate"/license*; do
            [ -f "$file" ] || continue
            sum=$(md5sum <"$file")
            if [ -z "${text[$sum]:-}" ]; then
                text[$sum]=$file
                order+=("$sum")
            fi
            [[ " ${whose[$sum]:-} " == *" $crate "* ]] || whose[$sum]="${whose[$sum]:+${whose[$sum]} }$crate"
        done
    done
done <<<"$crates"
for sum in "${order[@]}"; do
    printf '\n%s\n' "------------------------------------------------------------------------"
    fold -s -w 100 <<<"${whose[$sum]}"
    say
    cat "${text[$sum]}"
done
