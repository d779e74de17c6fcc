#!/usr/bin/env bash
# Makes the Debian package by cargo-deb, from the metadata in client-cli/Cargo.toml. Prints the path of the package.
# PROFILE=dev packs the programs as they lie in target/debug; else a release is built.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if ! command -v cargo-deb >/dev/null; then
    warn "cargo-deb is missing (it makes the package): building it from crates.io, which takes some minutes."
    cargo install --locked cargo-deb --version '~3.8'
fi
scripts/install.sh stage target/dist
scripts/third-party.sh | gzip -9n >target/dist/third-party.txt.gz

# Debian's form of a changelog: what has changed is in ours. Dated by the commit, so that one tree makes one package.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
who=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' client-cli/Cargo.toml)
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
printf 'trocar (%s) stable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' \
    "$version" "$who" "$(LC_ALL=C date -R -d "@$when")" >target/dist/changelog

options=(--package trocar --no-build --locked --strip)
case ${PROFILE:-release} in
dev) options+=(--profile dev) ;;
release) ;;
*) fail "PROFILE=$PROFILE: release or dev" ;;
esac
SOURCE_DATE_EPOCH=$when cargo deb --quiet "${options[@]}"
