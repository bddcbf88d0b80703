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
DEB_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1-1/p;/^version/q' Cargo.toml)
CARGO   ?= tests/lab/cargo.sh
MUSL    ?= $(shell uname -m)-unknown-linux-musl
# The form of OCI has no HEALTHCHECK, docker's has.
BUILDER ?= $(firstword $(foreach tool,podman buildah docker,$(shell command -v $(tool))) podman)
HEADERS := $(CURDIR)/target/kernel-headers

help:          ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build:         ## target/release/ipsecd
	$(CARGO) build --locked --release

static:        ## a binary that needs no library of the host: target/$(MUSL)/release/ipsecd
	@command -v musl-gcc >/dev/null || tests/lab/install.sh musl-tools
	@command -v rustup >/dev/null || { echo "make static: needs rustup, for Rust's library of $(MUSL)" >&2; exit 1; }
	rustup target add $(MUSL)
	@# musl-gcc knows the C library's headers alone; the kernel's are those of this machine.
	mkdir -p $(HEADERS)
	ln -sfn /usr/include/linux $(HEADERS)/linux
	ln -sfn /usr/include/asm-generic $(HEADERS)/asm-generic
	ln -sfn $$(realpath /usr/include/$$(gcc -print-multiarch)/asm || echo /usr/include/asm) $(HEADERS)/asm
	CFLAGS_$(subst -,_,$(MUSL))="-idirafter $(HEADERS)" $(CARGO) build --locked --release --target $(MUSL)

static-test: static ## the demo, with that binary
	IPSECD=target/$(MUSL)/release/ipsecd tests/demo/demo.sh

deb:           ## a Debian package, in target/debian
	@$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked cargo-deb
	$(CARGO) build --locked --release
	packaging/generate.sh target/release/ipsecd target/package $(DEB_VERSION)
	$(CARGO) deb --locked --no-build --strip --deb-version $(DEB_VERSION)

deb-test: target/packaging/newer.deb ## the package in a clean root: install, quick start, upgrade, remove, purge (root)
	tests/packaging/deb.sh target/packaging/this.deb target/packaging/newer.deb

units-test: target/packaging/newer.deb ## the package's units under a systemd of their own (root)
	tests/packaging/units.sh target/packaging/this.deb target/packaging/newer.deb

# This version, and the same as a version that is newer.
.PHONY: target/packaging/newer.deb
target/packaging/newer.deb:
	@command -v mmdebstrap >/dev/null || tests/lab/install.sh mmdebstrap
	@command -v lintian >/dev/null || tests/lab/install.sh lintian
	mkdir -p target/packaging
	rm -rf target/debian && $(MAKE) deb && mv target/debian/ipsecd_*.deb target/packaging/this.deb
	$(MAKE) deb DEB_VERSION=99.0-1 && mv target/debian/ipsecd_*.deb $@

image: static  ## a container image with nothing but the static binary (podman, buildah or docker)
	install -D -s -m 755 target/$(MUSL)/release/ipsecd target/image/ipsecd
	$(BUILDER) build $(if $(filter %docker,$(BUILDER)),,--format docker) -t ipsecd -f packaging/Containerfile target/image

image-test: image ## that image: two containers, a tunnel between them (podman)
	tests/packaging/image.sh ipsecd

fresh-test:    ## the demo on a Debian on which nothing is installed, Rust neither (root)
	@command -v mmdebstrap >/dev/null || tests/lab/install.sh mmdebstrap
	tests/packaging/fresh.sh

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
