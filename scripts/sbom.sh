#!/usr/bin/env bash
# Writes the software bill of materials, CycloneDX 1.5, of what the binaries are made of: target/sbom/trocar.cdx.json. From `cargo metadata`
# and Cargo.lock alone: the same tree gives the same file. Dependencies of tests and benchmarks only are left out. Then it checks what it wrote,
# and that the check can fail.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

python3 - "$@" <<'PYTHON'
import copy
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

# What is installed; the other members are tools of the repository.
SHIPPED = ["trocar", "trocar-relay", "trocar-gate", "trocar-signaling"]

metadata = json.loads(subprocess.run(
    ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
    capture_output=True, check=True).stdout)
packages = {p["id"]: p for p in metadata["packages"]}
nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
checksums = {}
for block in Path("Cargo.lock").read_text().split("[[package]]")[1:]:
    found = dict(re.findall(r'^(name|version|checksum) = "(.*)"$', block, re.M))
    if "checksum" in found:
        checksums[found["name"], found["version"]] = found["checksum"]


def children(package):
    """What is compiled into it, or runs while it is built."""
    for dep in nodes[package]["deps"]:
        if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]):
            yield dep["pkg"]


def reference(p):
    return f"pkg:cargo/{p['name']}@{p['version']}"


roots = [i for i, p in packages.items() if p["name"] in SHIPPED and p["source"] is None]
reached, left = set(), list(roots)
while left:
    package = left.pop()
    if package not in reached:
        reached.add(package)
        left.extend(children(package))


def component(package):
    p = packages[package]
    own = p["source"] is None
    out = {
        "type": "application" if p["name"] in SHIPPED[:3] else "library",
        "bom-ref": reference(p), "name": p["name"], "version": p["version"], "purl": reference(p), "scope": "required",
    }
    if p["license"]:
        out["licenses"] = [{"expression": p["license"].replace("/", " OR ")}]
    if (p["name"], p["version"]) in checksums:
        out["hashes"] = [{"alg": "SHA-256", "content": checksums[p["name"], p["version"]]}]
    if p["repository"] and not own:
        out["externalReferences"] = [{"type": "vcs", "url": p["repository"]}]
    return out


ordered = sorted(reached, key=lambda i: (packages[i]["name"], packages[i]["version"]))
version = next(packages[i]["version"] for i in roots)
lock = Path("Cargo.lock").read_bytes()
bom = {
    "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
    # By its contents, so that the same tree gives the same file.
    "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, lock.decode())}",
    "metadata": {"component": {"type": "application", "bom-ref": "trocar-node", "name": "trocar", "version": version}},
    "components": [component(i) for i in ordered],
    "dependencies": [{"ref": "trocar-node", "dependsOn": sorted(reference(packages[i]) for i in roots)}]
    + [{"ref": reference(packages[i]), "dependsOn": sorted({reference(packages[c]) for c in children(i)})} for i in ordered],
}


def faults(bom):
    """What is wrong with a bill: nothing, in the end."""
    wrong = []
    refs = [c["bom-ref"] for c in bom["components"]]
    if len(set(refs)) != len(refs):
        wrong.append("a component stands twice")
    known = set(refs) | {"trocar-node"}
    for d in bom["dependencies"]:
        wrong += [f"{d['ref']} needs {r}, which is not listed" for r in d["dependsOn"] if r not in known]
    listed = {(c["name"], c["version"]) for c in bom["components"]}
    for c in bom["components"]:
        if "licenses" not in c:
            wrong.append(f"{c['name']} has no licence")
        own = not c.get("hashes") and (c["name"], c["version"]) not in checksums
        if not own and "hashes" not in c:
            wrong.append(f"{c['name']} has no hash")
    for name in ["quinn", "rustls", "aws-lc-rs", "dimpl", "is", "axum", "jsonwebtoken", "rusqlite"]:
        if name not in {n for n, _ in listed}:
            wrong.append(f"{name} is not listed")
    return wrong


wrong = faults(bom)
for line in wrong:
    print(line, file=sys.stderr)
# The controls: a component taken away, one without a hash.
less = copy.deepcopy(bom)
less["components"] = [c for c in less["components"] if c["name"] != "rustls"]
bare = copy.deepcopy(bom)
next(c for c in bare["components"] if c["name"] == "quinn").pop("hashes")
if not any("rustls" in f for f in faults(less)) or "quinn has no hash" not in faults(bare):
    wrong.append("the check finds nothing")
    print(wrong[-1], file=sys.stderr)
if wrong:
    sys.exit(1)
out = Path("target/sbom/trocar.cdx.json")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n")
print(f"{out}: {len(bom['components'])} components")
PYTHON
