#!/usr/bin/env bash
# Runs schemathesis against a relay of its own: what /v1/openapi.json promises must be what the server answers. Fails on a
# server error (5xx) and on a response whose status, type or body the document does not have.
#
#   openapi-check.sh [EXAMPLES]   requests per operation, by default 20
#
# Bounded: one worker, and ten minutes at most.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

examples=${1:-20}
trocar=${TROCAR_BIN:-target/debug/trocar}
venv=${TROCAR_CACHE:-$HOME/.cache/trocar}/venv
[ -x "$trocar" ] || fail "$trocar is not built yet: run \`make build\`"
[ -x "$venv/bin/schemathesis" ] || fail "schemathesis is missing: run \`scripts/foreign.sh test\`"

dir=$(mktemp -d)
relay=
finish() {
    if [ -n "$relay" ]; then kill "$relay" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$trocar" up --json --dir "$dir/state" --port 0 >"$dir/up.json" 2>"$dir/up.log" &
relay=$!
for _ in $(seq 150); do
    if [ -s "$dir/up.json" ]; then break; fi
    kill -0 "$relay" 2>/dev/null || fail "trocar up ended: $(tail -n 3 "$dir/up.log")"
    sleep 0.2
done

# of_report EXPRESSION: a value of what `trocar up --json` printed.
of_report() { "$venv/bin/python" -c "import json, sys; r = json.load(open(sys.argv[1])); print($1)" "$dir/up.json"; }
page=$(of_report 'r["page"]')
# A member of the surgical team with a certificate may do the most, short of closing the session under everybody else.
token=$(curl --fail --silent --show-error "${page}v1/join" --header 'Content-Type: application/json' \
    --data "{\"invitation\": \"$(of_report 'r["tokens"]["local"]')\", \"name\": \"schemathesis\", \"cnf\": \"$(printf 'ab%.0s' {1..32})\"}" |
    "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["token"])')
curl --fail --silent --show-error --output "$dir/openapi.json" "${page}v1/openapi.json" ||
    fail "the server gives no ${page}v1/openapi.json"

# The limits on requests are part of the contract (429), so the requests are spread out a little.
status=0
TROCAR_SESSION=$(of_report 'r["session"]')
export TROCAR_SESSION
SCHEMATHESIS_HOOKS=openapi_hooks PYTHONPATH=media-tests/foreign timeout 600 "$venv/bin/schemathesis" run "$dir/openapi.json" --url "${page%/}" \
    --header "Authorization: Bearer $token" --max-examples "$examples" --workers 1 --request-timeout 10 \
    --phases examples,coverage,fuzzing --seed 1 --no-color --suppress-health-check all \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
    --rate-limit 40/s || status=$?
kill -0 "$relay" 2>/dev/null || fail "the server has ended: $(tail -n 5 "$dir/up.log")"
if ((status == 124)); then fail "schemathesis did not end within ten minutes"; fi
exit "$status"
