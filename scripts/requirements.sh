#!/usr/bin/env bash
# Every numbered requirement of proto/HANDOVER.md has a test that cites it, and every number that is cited exists.
#
# Numbers are cited one by one, so that searching for one finds its tests: a range ("HO-D-001 to …") is refused. Then the script proves
# that it can fail.
#
#   scripts/requirements.sh          checks
#   scripts/requirements.sh --list   prints each number with the files whose tests cite it
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

python3 - "$@" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

NUMBER = re.compile(r"\bHO-[A-Z]-\d{3}\b")
REQUIREMENT = re.compile(r"^- (HO-[A-Z]-\d{3})((?: \[[a-z-]+\])*) ", re.M)
# Two numbers, or a number and a bare end, with nothing between but a word or a sign that means "up to".
RANGE = re.compile(r"HO-[A-Z]-\d{3}`?\s*(?:to|until|through|up to|bis|–|—|\.\.+|…)\s*`?(?:HO-[A-Z]-)?\d{3}\b|HO-[A-Z]-\d{3}-\d{3}\b")
TEST_MODULE = re.compile(r"^#\[cfg\(test\)\]\n(?:#!?\[.*\]\n)*(?:pub(?:\([a-z]+\))? )?mod \w+ \{", re.M)
KINDS = {".rs", ".ts", ".mjs", ".js", ".sh", ".py", ".toml", ".md"}


def files():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    ).stdout.decode()
    for name in sorted(set(listed.split("\0"))):
        path = Path(name)
        if path.suffix in KINDS and path.is_file() and name not in ("proto/HANDOVER.md", "scripts/requirements.sh"):
            yield name, path.read_text(errors="replace")


def tests_of(name, text):
    """The part of a file that is tests; all of it where the file is one."""
    parts = Path(name).parts
    if "tests" in parts or parts[0] in ("media-tests", "fuzz"):
        return text if Path(name).suffix != ".md" else ""
    stem = Path(name).stem
    if stem in ("tests", "sim", "mutants") or stem.endswith((".test", "_test", "_tests")):
        return text
    inline = TEST_MODULE.search(text) if name.endswith(".rs") else None
    return text[inline.start():] if inline else ""


def judge(requirements, tree):
    """What is wrong, and who tests what."""
    wrong, tested = [], {}
    for name, text in tree:
        for match in RANGE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            wrong.append(f"{name}:{line}: a range, {' '.join(match[0].split())}: cite each number by itself")
        for match in NUMBER.finditer(text):
            if match[0] not in requirements:
                line = text.count("\n", 0, match.start()) + 1
                wrong.append(f"{name}:{line}: {match[0]} is no requirement of proto/HANDOVER.md")
        for number in set(NUMBER.findall(tests_of(name, text))):
            tested.setdefault(number, []).append(name)
    for number, tags in requirements.items():
        if number not in tested:
            where = f" [{', '.join(sorted(tags))}]" if tags else ""
            wrong.append(f"{number}{where}: no test cites it")
    return wrong, tested


text = Path("proto/HANDOVER.md").read_text()
requirements = {m[1]: set(re.findall(r"[a-z-]+", m[2])) for m in REQUIREMENT.finditer(text)}
twice = [n for n in requirements if len(re.findall(rf"^- {n} ", text, re.M)) > 1]
tree = list(files())
wrong, tested = judge(requirements, tree)
wrong += [f"{n}: stands twice in proto/HANDOVER.md" for n in twice]

if "--list" in sys.argv:
    for number in requirements:
        print(number, "  ".join(tested.get(number, ["-"])))

for line in wrong:
    print(line, file=sys.stderr)

# The negative controls: one citation taken away, one number made up, one range.
victim = next(n for n in requirements if n in tested)
without = [(name, content.replace(victim, "")) for name, content in tree]
controls = {
    f"{victim}: no test cites it": judge(requirements, without)[0],
    "x.rs:1: HO-Z-999 is no requirement of proto/HANDOVER.md": judge(requirements, [*tree, ("x.rs", "// HO-Z-999")])[0],
    "x.rs:1: a range, HO-D-001 to HO-D-004: cite each number by itself":
        judge(requirements, [*tree, ("x.rs", "// HO-D-001 to HO-D-004")])[0],
}
blind = [expected for expected, found in controls.items() if not any(line.split(" [")[0].startswith(expected.split(":")[0]) and expected.split(": ")[-1] in line for line in found)]
for expected in blind:
    print(f"this check is blind: it did not say \"{expected}\"", file=sys.stderr)

if wrong or blind:
    sys.exit(f"requirements.sh: {len(wrong)} of the handover's requirements or citations are wrong")
print(f"{len(requirements)} requirements, {sum(1 for n in requirements if n in tested)} tested")
PYTHON

# The model checker's copy of the handover is the only one in which a check can be switched off (`cfg(trocar_model)`), and no
# program is built from it.
setters=$(git grep --untracked -l 'rustc-cfg=trocar_model\|--cfg trocar_model\|cfg=.trocar_model' -- ':!scripts/requirements.sh' || true)
[ "$setters" = media-tests/model/build.rs ] || fail "cfg(trocar_model) is set by: $(tr '\n' ' ' <<<"$setters")"
for crate in trocar trocar-relay trocar-signaling trocar-gate trocar-control; do
    if cargo tree --quiet --package "$crate" --edges normal,build --prefix none --format '{p}' | grep -q '^trocar-model '; then
        fail "$crate depends on trocar-model"
    fi
done
if grep -n '^\(mutants\|model\) *=' proto/Cargo.toml; then fail "trocar-proto has a feature by which checks are switched off"; fi
say "no program is built with a check switched off"
