# ipsecd. `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help build demo test lab lint deny doc book fuzz bench install uninstall clean

PREFIX  ?= /usr/local
DESTDIR ?=
MAN     := $(PREFIX)/share/man/man1
BASH    := $(PREFIX)/share/bash-completion/completions
T       ?= 60
BENCH   ?= all
ROUNDS  ?= 5
MUSL    ?= $(shell uname -m)-unknown-linux-musl

help:          ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build:         ## target/release/ipsecd
	cargo build --locked --release

static:        ## a binary that needs no library of the host: target/$(MUSL)/release/ipsecd
	@command -v musl-gcc >/dev/null || tests/lab/install.sh musl-tools
	rustup target add $(MUSL)
	cargo build --locked --release --target $(MUSL)

deb:           ## a Debian package, in target/debian
	@cargo deb --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-deb
	cargo build --locked --release
	packaging/generate.sh target/release/ipsecd target/package
	cargo deb --locked --no-build $(if $(DEB_VERSION),--deb-version $(DEB_VERSION))

deb-test:      ## the package in a clean root: install, quick start, upgrade, remove, purge (root)
	@command -v mmdebstrap >/dev/null || tests/lab/install.sh mmdebstrap
	$(MAKE) deb
	rm -rf target/deb-test && mv target/debian target/deb-test
	$(MAKE) deb DEB_VERSION=99.0-1
	tests/packaging/deb.sh target/deb-test/ipsecd_*.deb target/debian/ipsecd_99*.deb

image: static  ## a container image with nothing but the static binary (podman or docker)
	$(or $(shell command -v podman),docker) build -t ipsecd -f packaging/Containerfile .

demo:          ## two sites in namespaces, a tunnel between them, a file across, a look at the wire
	tests/demo/demo.sh

test:          ## everything that CI runs; installs what it needs
	.ci/run

lab:           ## two sites to play with, until Enter is pressed (root)
	tests/lab/install.sh
	@trap '' INT; cargo test --locked --quiet --test e2e -- --ignored --exact --nocapture playground::two_sites

lint:          ## format, clippy, the core alone
	.ci/run fmt core clippy

deny:          ## licences, bans, sources of what we depend on; advisories where they can be had
	.ci/run deny

doc:           ## the library's documentation, in target/doc
	.ci/run doc

book:          ## the documentation, in target/book
	.ci/run book

fuzz:          ## every fuzz target for T seconds (make fuzz T=60)
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	fuzz/run.sh $(T)

bench:         ## beside other VPNs, into docs/performance.md (root); in parts: make bench BENCH=tcp ROUNDS=1
	benches/live/run.py --bench $(BENCH) --rounds $(ROUNDS) $(if $(filter all,$(BENCH)),--write) $(OPTIONS)

install: build ## into PREFIX (/usr/local): the binary, its man pages, completions
	install -D -m 755 target/release/ipsecd $(DESTDIR)$(PREFIX)/sbin/ipsecd
	install -d $(DESTDIR)$(MAN) $(DESTDIR)$(BASH)
	target/release/ipsecd man $(DESTDIR)$(MAN)
	target/release/ipsecd completions bash > $(DESTDIR)$(BASH)/ipsecd

uninstall:     ## what install put there
	rm -f $(DESTDIR)$(PREFIX)/sbin/ipsecd $(DESTDIR)$(BASH)/ipsecd
	rm -f $(DESTDIR)$(MAN)/ipsecd.1 $(DESTDIR)$(MAN)/ipsecd-*.1

clean:         ## everything that was built
	cargo clean
