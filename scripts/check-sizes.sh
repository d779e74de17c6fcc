#!/usr/bin/env bash
# A file tells one story: names source files over 600 lines, fails on those over 800.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

git ls-files -z --cached --others --exclude-standard -- '*.rs' '*.ts' '*.mjs' '*.css' '*.html' '*.sh' Makefile |
    while IFS= read -rd '' file; do
        if [ -f "$file" ]; then printf '%s %s\n' "$(wc -l <"$file")" "$file"; fi
    done |
    sort -rn |
    awk '$1 > 800 { print "too long (over 800 lines): " $0; bad = 1; next }
         $1 > 600 { print "long (over 600 lines): " $0 }
         END { exit bad }'
