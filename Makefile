# Two commands matter: `make demo` and `make test`. CI runs `make check` and `make test`, and nothing else.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build demo test soak check attack fuzz sbom load link-peers repair glass bench bench-micro interop handover model sim bench-control screenshots fixtures clean-room deny fmt
PREFIX ?= /usr/local
export PREFIX DESTDIR SYSCONFDIR PROFILE
.PHONY: install uninstall deb
.PHONY: setup-run setup-test setup-check test-prepare test-page

# A cargo that was installed a moment ago is found in this shell too.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: setup-test ## install what is missing to build, run and test (says what and why first)

# Always the whole workspace: one set of features, so that demo, tests and benchmarks share every compiled crate.
build: setup-run ## build everything
	@cargo build --workspace

demo: build ## a picture crosses the relay, and control of a simulated arm can be handed over; Ctrl-C stops
	@scripts/demo.sh

test: test-prepare test-page ## the whole suite; its last line is the summary
	@cargo nextest run --workspace --no-fail-fast

soak: test-prepare ## a site that works for an hour, watched for what grows; then the tests that `make test` keeps short, at full length (half an hour)
	@cargo run -q -p trocar-media-tests --bin trocar-soak
	@TROCAR_SOAK=1 TROCAR_RACES=10000 cargo nextest run --workspace --no-fail-fast -E 'package(trocar-media-tests)'

check: setup-check ## formatting, lints, docs, purity of proto, licences and bans
	@scripts/check.sh

attack: build ## hostile input of every kind against the real processes, as a table (SECURITY.md)
	@cargo run -q -p trocar-media-tests --bin trocar-attack

fuzz: build ## every parser of what comes from the network, a minute each; SECONDS_EACH=… SEED=…
	@cargo run -q -p trocar-media-tests --bin trocar-fuzz -- --seconds $(or $(SECONDS_EACH),60) --seed $(or $(SEED),1)

sbom: setup-run ## the bill of materials (CycloneDX), in target/sbom
	@scripts/sbom.sh

load: build ## load from this machine: 4K to 16 viewers, 500 light viewers, and where the ceiling is (docs/LOAD.md)
	@scripts/load.sh

link-peers: build ## `trocar link test` beside iperf3 and SRT over the same emulated lines (docs/LINK.md; five minutes)
	@cargo run -q -p trocar-media-tests --bin trocar-link-peers

repair: build ## deadline repair: every simulated cell, as often as its bound needs, and five real ones (docs/DESIGN.md; half an hour)
	@cargo run -q -p trocar-media-tests --bin trocar-repair-sim -- --keep
	@cargo run -q -p trocar-media-tests --bin trocar-repair-sim -- --real --keep

glass: test-prepare ## glass to glass, from the time in the pixels: a native window and a browser
	@TROCAR_SOAK=1 cargo nextest run --workspace -E 'package(trocar-media-tests) and test(/^glass::/)' --success-output final

bench: build ## measure: what a packet costs in the relay, beside floors and the common way (seven minutes, a quiet machine)
	@cargo run -q -p trocar-media-tests --bin trocar-bench

# The profile is that of everything else: what is checked is what is measured, and nothing is compiled twice.
bench-micro: setup-run ## measure: the pure parts of a packet's road, and instructions per packet
	@cargo bench -q --profile dev --workspace --bench pure
	@cargo run -q -p trocar-media-tests --bin trocar-bench-road -- count

handover: build ## the failures of the handover with real processes, as a table (proto/HANDOVER.md section 17)
	@TROCAR_RACES=10000 cargo run -q -p trocar-media-tests --bin trocar-failures

model: setup-run ## the handover's rules, model-checked deeper than in the tests (ten minutes)
	@cargo run -q -p trocar-model --bin trocar-model -- --deep --limit 600

sim: setup-run ## the handover simulated; SEEDS=… says how often (2000)
	@cargo run -q -p trocar-model --bin trocar-sim -- --seeds $(or $(SEEDS),2000)

bench-control: build ## measure: a command from the expert's station to the device, under a picture of 200 Mbit/s
	@cargo run -q -p trocar-media-tests --bin trocar-bench-control

interop: build ## clients that nobody here wrote, client x codec x direction (docs/INTEROP.md; installs them first)
	@scripts/foreign.sh
	@cargo run -q -p trocar-media-tests --bin trocar-interop

screenshots: setup-test ## every screen of the page in both languages, into var/artifacts/screenshots
	@npm run --silent build --prefix signaling/web
	@node media-tests/browser/screenshots.mjs var/artifacts/screenshots

fixtures: build ## make the videos that tests and demo replay (once, in ~/.cache/trocar)
	@scripts/fixtures.sh

clean-room: ## clone HEAD into a temporary folder and run demo and test there, as a newcomer would
	@scripts/clean-room.sh

deny: setup-check ## licences, bans and sources of the dependencies
	@cargo deny --log-level error check bans licenses sources

install: setup-run ## put programs, man pages, completions and services under PREFIX (/usr/local); DESTDIR for packagers
	@scripts/install.sh install

uninstall: ## take away what `make install` put there; configuration and state stay
	@scripts/install.sh uninstall

deb: setup-run ## a Debian package, in target/debian
	@scripts/deb.sh

fmt: ## format the Rust code
	@cargo fmt --all

setup-run:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

setup-check:
	@scripts/setup.sh check

# What takes long before the first test: CI times it apart.
test-prepare: setup-test fixtures
	@cargo nextest run --workspace --no-run

test-page: setup-test
	@if [ -f signaling/web/package.json ]; then npm test --silent --prefix signaling/web; fi
