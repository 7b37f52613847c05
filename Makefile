# The targets are what CI runs; see CONTRIBUTING.md.

FUZZ_SECONDS ?= 60

# Tests with real servers wait most of their time, so four run at once even on two cores.
export RUST_TEST_THREADS ?= $(shell cores=$$(nproc); echo $$((cores > 4 ? cores : 4)))

# A newer Debian for test-4: sid or trixie. By default the newest that can be had.
SUITE ?=

.PHONY: demo test test-4 test-core chaos hostile api lint fuzz bench growth flat instructions allocations soak package static test-package publish-check sbom setup

# A private RabbitMQ, Hapax before it, 100,000 publishes, and a check of what the queue holds. KEEP=1 leaves both running.
demo:
	@scripts/setup demo
	cargo build --release
	target/release/hapax demo

# Everything, against a real RabbitMQ and real client libraries. HAPAX_E2E_DIRECT=1 leaves the relay out.
test: setup
	cargo test --workspace

# The end-to-end tests against RabbitMQ 4, which scripts/rabbitmq-4 gets from a newer Debian. Where none can be had, it
# says why and skips them.
test-4: setup
	@programs=$$(scripts/rabbitmq-4 $(SUITE)) || { [ $$? = 3 ] && exit 0; exit 1; }; \
	HAPAX_RABBITMQ=$$programs cargo test --test relay

# The tests of the core: they need no broker and nothing that has to be installed.
test-core:
	cargo test -p hapax-core

# The relay killed with signal 9 under load, KILLS times for each policy of each store, and started again RESTARTS times; 20,000 random lives of a log on a disk that fails; EXACTLY_ONCE seconds from outboxes to effects.
KILLS ?= 1000
RESTARTS ?= 500
EXACTLY_ONCE ?= 600
chaos: setup
	HAPAX_LOG_SEEDS=20000 cargo test --lib store::
	HAPAX_KILLS=$(KILLS) HAPAX_EXACTLY_ONCE=$(EXACTLY_ONCE) cargo test --test store -- --nocapture
	HAPAX_KILLS=$(KILLS) cargo test --test relay stream::survive -- --nocapture
	HAPAX_RESTARTS=$(RESTARTS) cargo test --test relay restart:: -- --nocapture
	cargo test --test relay stream:: -- --ignored

# 10,000 connections, half of them hostile in nine ways, and what the honest half notices of that. It needs some 18,000 open files.
CROWD ?= 10000
hostile: setup
	HAPAX_CROWD=$(CROWD) cargo test --release --test relay hostile::crowd -- --nocapture

# The API against its own OpenAPI document, by Schemathesis from PyPI: a minute.
api:
	scripts/schemathesis

# The last check is the lean relay: no code of the relay needs the tools.
lint:
	@scripts/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items
	cargo clippy -p hapax --no-default-features -- -D warnings

# Each target for FUZZ_SECONDS, from the seeds that are kept in fuzz/corpus. New finds go to fuzz/target/corpus, which
# git does not see; what a find teaches is kept as a seed with a name, which `make test` replays.
fuzz:
	scripts/setup fuzz
	for target in $$(cargo +nightly fuzz list); do \
		mkdir -p fuzz/target/corpus/$$target; \
		cargo +nightly fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit 1; \
	done

# The table of targets: Hapax against haproxy in TCP mode and against none, a few minutes. BENCH="--row 1 --row 3",
# BENCH=--quick and BENCH=--json are handed on. See docs/bench.md.
bench:
	@scripts/setup bench
	cargo build --release
	target/release/hapax bench compare $(BENCH)

# How the cost of a message grows with the window and the connections: some ten minutes, and 2.2 GB for the largest window.
growth:
	@scripts/setup bench
	cargo build --release
	target/release/hapax bench growth --svg docs/images/growth.svg $(BENCH)

# Whether the memory of 10,000 producers with sequences stays flat over a hundred million messages: four minutes.
flat:
	cargo build --release
	target/release/hapax bench flat $(BENCH)

# An hour under a steady load (SOAK_SECONDS), and whether memory stays flat.
soak:
	cargo build --release
	scripts/soak

# Instructions per message against those that are kept: a regression is seen without a clock. scripts/instructions --write keeps new ones.
instructions:
	@scripts/setup instructions
	scripts/instructions

# Blocks and bytes that a message allocates in a session alone. For looking at: nothing fails.
allocations:
	@scripts/setup instructions
	scripts/allocations

# A Debian package in target/debian, for the Debian that this is built on and newer ones.
package:
	@scripts/setup package
	cargo build --release
	scripts/package

# A program that needs no library of the system, in target/x86_64-unknown-linux-musl/release (docs/adr/0040-packages.md).
static:
	@scripts/setup static
	cargo build --release --target x86_64-unknown-linux-musl

# Installs, runs, upgrades and purges the package in a Debian 12 of its own: a minute, and a release build before it. Where no such
# root can be made, it says why and passes.
test-package:
	@scripts/setup package
	cargo build --release
	@scripts/test-package || { [ $$? = 3 ] && exit 0; exit 1; }

# What crates.io would get, in the order in which it gets it. Each package is built from what is in it, and hapax from the packages of
# hapax-core and hapax-testbed, which crates.io need not have. Nothing is sent.
publish-check:
	cargo publish --workspace --dry-run

# What is in the program, as CycloneDX.
sbom:
	@mkdir -p target
	scripts/sbom > target/hapax.cdx.json
	scripts/sbom --lean > target/hapax-lean.cdx.json

# Installs what the tests need; quick when nothing is missing.
setup:
	@scripts/setup
