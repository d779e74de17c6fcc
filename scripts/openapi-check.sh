#!/usr/bin/env bash
# Runs schemathesis against a relay of its own: what /v1/openapi.json promises must be what the server answers. Fails on a
# server error (5xx) and on a response whose status, type or body the document does not have.
#
#   openapi-check.sh [EXAMPLES]   requests per operation, by default 20
#
# Bounded: one worker, and 200 s for each of three passes: as coordinator, as publisher, and what deletes.
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
publisher=
# shellcheck disable=SC2317 # called by the trap
finish() {
    for p in $publisher $relay; do kill "$p" 2>/dev/null || true; done
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
curl --fail --silent --show-error --output "$dir/openapi.json" "${page}v1/openapi.json" ||
    fail "the server gives no ${page}v1/openapi.json"

# Something to look at, so that more than refusals is looked at.
"$trocar" publish --invite "$(of_report 'r["invitations"]["local"]')" --ca "$(of_report 'r["ca_file"]')" \
    --source test --size 320x240@15 >"$dir/publish.log" 2>&1 &
publisher=$!

# The ids of this run: made-up ones would be refused before anything is done.
cat >"$dir/schemathesis.toml" <<END
[parameters]
"path.session" = "$(of_report 'r["session"]')"
"path.feed" = "scope"
END

# Bodies of session descriptions are text, which schemathesis must be told.
export PYTHONPATH=media-tests/foreign PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=openapi_hooks

checks=not_a_server_error,status_code_conformance,content_type_conformance
checks+=,response_headers_conformance,response_schema_conformance

# pass ROLE OPTIONS...: every operation that is chosen, by somebody of that role.
pass() {
    local role=$1 token body status=0
    shift
    body="{\"invitation\": \"$(of_report "r['tokens']['$role']")\", \"name\": \"schemathesis\"}"
    token=$(curl --fail --silent --show-error "${page}v1/join" --header 'Content-Type: application/json' --data "$body" |
        "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["token"])')
    say "== as $role $*"
    # The limits on requests are part of the contract (429), so the requests are spread out a little.
    timeout 200 "$venv/bin/schemathesis" --config-file "$dir/schemathesis.toml" run "$dir/openapi.json" \
        --url "${page%/}" --header "Authorization: Bearer $token" --max-examples "$examples" --workers 1 \
        --request-timeout 10 --phases examples,coverage,fuzzing --seed 1 --no-color --suppress-health-check all \
        --checks "$checks" --rate-limit 40/s "$@" || status=$?
    kill -0 "$relay" 2>/dev/null || fail "the server has ended: $(tail -n 5 "$dir/up.log")"
    if ((status == 124)); then fail "schemathesis did not end within 200 s"; fi
    if ((status)); then failed=1; fi
}

failed=0
pass coordinator --exclude-method DELETE
pass local --exclude-method DELETE
# Last, for it closes the session.
pass coordinator --include-method DELETE
exit "$failed"
