# make run      the whole mail system in a folder, on high ports: see README.md
# make check    every test there is
# make install  programs, units, man pages, sample configuration
# make bench    side by side with Postfix and Dovecot
# make fuzz     TARGET=session SECONDS=60: input made up by an engine, see docs/fuzzing.md

ROOT            ?= ./run
LISTEN          ?= 127.0.0.1
SMTP_PORT       ?= 2525
SUBMISSION_PORT ?= 2587
SMTPS_PORT      ?= 2465
POP3_PORT       ?= 2110
POP3S_PORT      ?= 2995
IMAP_PORT       ?= 2143
IMAPS_PORT      ?= 2993
DOMAIN          ?= yubin.test

TARGET  ?= session
SECONDS ?= 60

DESTDIR =
PREFIX  = /usr

CARGO ?= cargo

.PHONY: build run check lint advisories test docs install bench fuzz clean needs needs-check

build: needs
	$(CARGO) build --release --locked --workspace

run: build
	@needs='curl openssl' etc/needs
	@ROOT='$(ROOT)' LISTEN='$(LISTEN)' SMTP_PORT='$(SMTP_PORT)' SUBMISSION_PORT='$(SUBMISSION_PORT)' \
	 SMTPS_PORT='$(SMTPS_PORT)' POP3_PORT='$(POP3_PORT)' POP3S_PORT='$(POP3S_PORT)' \
	 IMAP_PORT='$(IMAP_PORT)' IMAPS_PORT='$(IMAPS_PORT)' DOMAIN='$(DOMAIN)' \
	 PROGRAMS='$(CURDIR)/target/release' exec etc/run

check: lint docs test

# ring compiles C
needs:
	@needs='cc:gcc libc:libc6-dev' etc/needs

# what the tests drive us with, all written by others
needs-check: needs
	@needs='curl openssl strace mandoc swaks msmtp s-nail mutt fetchmail mbsync:isync gsasl aiosmtpd:python3-aiosmtpd dkim:python3-dkim authres:python3-authres yaml:python3-yaml opendkim rspamd Milter:python3-milter exim4:exim4-daemon-light openspf:golang-blitiri-go-spf-dev spf_engine:python3-spf-engine proxsmtpd:proxsmtp nsd ldns-signzone:ldnsutils' etc/needs

lint: needs
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked --offline --log-level error check licenses bans sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# fetches the RustSec database, so it is no part of check
advisories:
	$(CARGO) deny check advisories

docs: needs-check
	mandoc -Tlint -Wwarning etc/man/*
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

test: needs-check
	$(CARGO) build --locked --workspace
	$(CARGO) test --locked --workspace

install:
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PROGRAMS='$(CURDIR)/target/release' etc/install

bench: build
	bench/run

# for developers: takes a nightly toolchain and cargo-fuzz where they are missing
fuzz:
	@needs='cc:gcc c++:g++ libc:libc6-dev' etc/needs
	fuzz/run '$(TARGET)' '$(SECONDS)'

clean:
	$(CARGO) clean
