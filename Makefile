# Targets: build (the programs, into bin/), test, campaign (what takes hours), check, bench, fuzz, demo (MTA=exim), deb (the package, into dist/;
# DEB_ARCH=arm64), apt-repository (both packages, signed with GPG_KEY=), test-install (the packages on machines of their
# own; RELEASES=trixie), deps, clean.
# Needed: Go and a C compiler; the tests use a real Postfix, a real Exim and real mail clients as well. Each target installs on Debian
# what it needs itself, "make deps" all.

GO       ?= go
FUZZTIME ?= 20s
CUTS     ?= 200
# Stories of nodes that are the same beside each MTA: make test has them beside Postfix, the campaign beside Exim, too.
OF_NODES  = ^Test(TheNetworkIsCutInEveryWay|ANodesDiskIsFull|ANodeIsReplaced)$$
MTA      ?= postfix
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   = -X mailbag/cmd/internal/version.version=$(VERSION)
PROGRAMS  = $(notdir $(patsubst %/,%,$(dir $(wildcard cmd/*/main.go))))

# ./... leaves testdata/ out.
PACKAGES  = ./... $(addprefix ./,$(sort $(patsubst %/,%,$(dir $(wildcard testdata/*/*.go)))))
SOURCES   = $(wildcard meter policy turnd popd cmd testdata)

# Debian's packages, by what needs them.
NEEDED_build   = gcc libc6-dev
NEEDED_deb     = $(NEEDED_build) lintian $(if $(FOREIGN),$(CROSS_$(DEB_ARCH)))
NEEDED_demo    = $(NEEDED_build) ca-certificates curl fetchmail postfix postfix-cdb procps
NEEDED_test    = $(NEEDED_demo) dovecot-core dovecot-lmtpd dovecot-pop3d getmail6 gsasl haproxy mandoc mpop mutt python3 python3-aiosmtpd sqlite3 strace swaks tinycdb
# A browser, and fonts for it, to look at the pages for customers.
NEEDED_test   += chromium fonts-dejavu-core
# Exim's and OpenSMTPD's packages exclude that of Postfix: they are unpacked, and these are the libraries they want.
NEEDED_demo   += libdb5.3 libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0
NEEDED_test   += libevent-2.1-7
NEEDED_apt     = apt-utils gnupg xz-utils
NEEDED_install = $(NEEDED_apt) debootstrap prometheus systemd-container
KINDS          = build deb demo test apt install
UNPACKED_exim      = exim4-daemon-light exim4-base exim4-config libnss-wrapper
UNPACKED_opensmtpd = opensmtpd

export CGO_ENABLED = 1

# The package. All that is in it has the time of the last commit, so that it comes out the same each time.
NATIVE      = $(shell dpkg --print-architecture)
DEB_ARCH    = $(NATIVE)
DEB_ARCHS   = amd64 arm64
DEB_VERSION = $(shell packaging/version)
DEB         = dist/mailbag_$(DEB_VERSION)_$(DEB_ARCH).deb
NFPM        = $(GO) tool -modfile=packaging/nfpm.mod nfpm
LINTIAN     = lintian --allow-root --fail-on error,warning
# For the other architecture that one's C compiler is needed, and an emulator that tries the programs.
FOREIGN     = $(filter-out $(NATIVE),$(DEB_ARCH))
CC_amd64    = x86_64-linux-gnu-gcc
CC_arm64    = aarch64-linux-gnu-gcc
CROSS_amd64 = gcc-x86-64-linux-gnu libc6-dev-amd64-cross qemu-user
CROSS_arm64 = gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
HARDENED    = -trimpath -buildvcs=false -buildmode=pie -ldflags '-s -w -linkmode=external -extldflags "-Wl,-z,relro,-z,now" \
	-X mailbag/cmd/internal/version.version=$(DEB_VERSION)'

# Signed packages for apt; other versions that lie there stay.
APT_REPOSITORY = dist/apt
GPG_KEY        =
# The machines on which the package is tried: Debians with Postfix, or with Exim.
RELEASES       = bookworm bookworm-exim trixie trixie-exim

.PHONY: all build test test-packages test-exim campaign check bench fuzz demo deb debs apt-repository test-install deps $(KINDS:%=deps-%) test-meter exim opensmtpd rqlited clean

all: build

build: deps-build
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

# go test says of a package whose tests were skipped only that it is ok.
test: deps-test exim opensmtpd rqlited
	@if [ "$$(id -u)" -ne 0 ]; then \
		echo "not root, so what needs a private Postfix or Exim is skipped; it is in:"; \
		grep -rlE --include='*_test.go' 'RequirePostfix\(|(postfix|exim|mta)test\.(Prepare|Run)\(' $(SOURCES); \
	fi
	@if [ ! -e .cache/rqlited ]; then \
		echo "no rqlited, so what needs nodes of it is skipped; it is in:"; \
		grep -rlE --include='*_test.go' 'rqlitetest\.|MAILBAG_TEST_ENGINE' $(SOURCES); \
	fi
	@if [ ! -c /dev/fuse ]; then \
		echo "no /dev/fuse, so what has the power fail is skipped; it is in:"; \
		grep -rlE --include='*_test.go' 'blackout\.Mount|^package blackout' $(SOURCES); \
	fi
	@$(MAKE) --no-print-directory -j 2 test-packages test-exim
	@$(MAKE) --no-print-directory test-meter

# The stories beside Exim are told while all else is tested: they mostly wait.
test-packages:
	MTA=postfix $(GO) test -race -timeout 30m $(PACKAGES)

test-exim:
	MTA=exim $(GO) test -race -timeout 30m -skip '$(OF_NODES)' ./cmd/internal/e2e

# The ledger again: with each batch written twice, in whatever order SQLite reads, and on rqlite.
test-meter:
	for engine in twice shadow $(if $(wildcard .cache/rqlited),rqlite); do \
		MAILBAG_TEST_ENGINE=$$engine $(GO) test -timeout 30m ./meter || exit 1; \
	done

# make test has the power fail a few times.
campaign: deps-test rqlited
	$(GO) test -count=1 -v -timeout 4h ./cmd/internal/powerloss -cuts $(CUTS)
	MTA=exim $(GO) test -count=1 -v -timeout 1h -run '$(OF_NODES)' ./cmd/internal/e2e

check: deps-build
	@unformatted=$$(gofmt -l $(SOURCES)); if [ -n "$$unformatted" ]; then \
		echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) tool staticcheck $(PACKAGES)
	$(GO) mod tidy -diff

bench: build deps-test rqlited
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m $(PACKAGES)
	$(GO) run ./testdata/bench

# Go fuzzes one target at a time. Minimizing is cut short, or it takes the time of short runs.
fuzz: deps
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' $(SOURCES)); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "$$target in $$(dirname $$file)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./$$(dirname $$file) || exit 1; \
		done; \
	done

demo: build deps-demo $(filter exim,$(MTA))
	$(GO) run ./testdata/demo -mta $(MTA)

# Postfix asks nothing and is not started: the tests run their own. policy-rc.d(8) keeps the package
# from starting it; one that is there already is left as it is.
deps: $(KINDS:%=deps-%)

$(KINDS:%=deps-%): deps-%:
	@missing=; for p in $(NEEDED_$*); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing Debian packages:$$missing"; \
		echo "they are installed only by root on Debian; tests that need them are skipped or fail"; \
		exit 0; \
	fi; \
	echo "installing:$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT; \
		printf '#!/bin/sh\nexit 101\n' >$$policy && chmod 755 $$policy; \
	fi; \
	echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections; \
	apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends $$missing

# The customers' servers of the tests, and the Exim beside which mailbag runs in them. Where one cannot be had, they skip
# what needs it. What apt knows may be too old, or nothing, where all else was there already.
exim opensmtpd:
	@missing=; for p in $(UNPACKED_$@); do [ -e .cache/$@/usr/share/doc/$$p ] || missing=1; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		echo "unpacking: $(UNPACKED_$@)"; \
		download="apt-get -qq download -o APT::Sandbox::User=root $(UNPACKED_$@)"; \
		rm -rf .cache/new-$@ && mkdir -p .cache/new-$@ && cd .cache/new-$@ && { $$download || { apt-get -qq update && $$download; }; } && \
		for p in *.deb; do dpkg -x $$p . && rm $$p || exit 1; done && rm -rf ../$@ && mv ../new-$@ ../$@ || echo "no $@ for the tests"; \
	fi

# The server of ledgers on several machines, for the tests, from its Go module.
rqlited: deps-build
	@stamp="$$(cat testdata/rqlite/rqlited.mod testdata/rqlite/rqlited.sum | cksum)"; \
	if [ ! -e .cache/rqlited ] || [ "$$stamp" != "$$(cat .cache/rqlited.built 2>/dev/null)" ]; then \
		echo "building: rqlited"; mkdir -p .cache; \
		$(GO) build -modfile=testdata/rqlite/rqlited.mod -o .cache/rqlited github.com/rqlite/rqlite/v8/cmd/rqlited && \
			echo "$$stamp" >.cache/rqlited.built || echo "no rqlited for the tests"; \
	fi

# Manual pages and completions are written by a program that runs here.
deb: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
deb: deps-deb
	$(if $(filter $(DEB_ARCH),$(DEB_ARCHS)),,$(error DEB_ARCH=$(DEB_ARCH) is not one of $(DEB_ARCHS)))
	@rm -rf dist/build && mkdir -p dist/build/native dist/build/man dist/build/completion
	$(if $(FOREIGN),CC=$(CC_$(DEB_ARCH)) GOARCH=$(DEB_ARCH)) $(GO) build $(HARDENED) -o dist/build/ $(addprefix ./cmd/,$(PROGRAMS))
	$(GO) build $(HARDENED) -o dist/build/native/ ./cmd/mailbag
	dist/build/native/mailbag manual dist/build/man
	sed -i '/^.SH SECURITY/,$$d' dist/build/man/mailbag.8 && cat packaging/man/mailbag.8.end >>dist/build/man/mailbag.8
	packaging/man/pages $(DEB_VERSION) dist/build/man
	for shell in bash zsh fish; do dist/build/native/mailbag completion $$shell >dist/build/completion/mailbag.$$shell || exit 1; done
	packaging/changelog $(DEB_VERSION) >dist/build/changelog
	gzip -9n dist/build/changelog dist/build/man/*
	LIBC_VERSION=$$(packaging/libc $(addprefix dist/build/,$(PROGRAMS))) DEB_ARCH=$(DEB_ARCH) DEB_VERSION=$(DEB_VERSION) \
		$(NFPM) package --config packaging/nfpm.yaml --packager deb --target $(DEB)
	$(LINTIAN) $(DEB)
	packaging/test/programs $(DEB)

debs:
	for arch in $(DEB_ARCHS); do $(MAKE) deb DEB_ARCH=$$arch || exit 1; done

apt-repository: debs deps-apt
	packaging/repository "$(GPG_KEY)" $(APT_REPOSITORY) $(DEB_ARCHS:%=dist/mailbag_$(DEB_VERSION)_%.deb)

# On Debians in a container, which takes root; each is made once, with debootstrap. The packages are built a second time,
# which has to make the same and so needs no second look by lintian.
test-install: debs deps-install
	rm -rf dist/first && mkdir dist/first && mv $(DEB_ARCHS:%=dist/mailbag_$(DEB_VERSION)_%.deb) dist/first/
	$(MAKE) debs LINTIAN=:
	for deb in dist/first/*.deb; do cmp $$deb dist/$${deb##*/} || exit 1; done
	for release in $(RELEASES); do packaging/test/install $$release $(DEB_ARCHS:%=dist/mailbag_$(DEB_VERSION)_%.deb) || exit 1; done

clean:
	rm -rf bin dist .cache
