# make run: build everything and serve a demo on loopback; make test: all tests.

PLUGINS := $(notdir $(patsubst %/main.go,%,$(wildcard plugins/*/main.go)))
WASM    := $(PLUGINS:%=plugins/build/%.wasm)
SDK     := $(wildcard sdk/*.go sdk/*/*.go plugins/internal/*/*.go)
GO      ?= go
DEMO    ?= .demo

.PHONY: run test bench lint build plugins clean

run: build
	.build/wafer demo $(DEMO)

build: plugins
	$(GO) build -trimpath -ldflags "-s -w" -o .build/wafer ./cmd/wafer

plugins: $(WASM)

# Stock Go is the compiler of plugins; the result is embedded into the binary.
.SECONDEXPANSION:
plugins/build/%.wasm: $$(wildcard plugins/%/*.go) $(SDK) go.mod
	GOOS=wasip1 GOARCH=wasm $(GO) build -trimpath -ldflags "-s -w" -buildmode=c-shared -o $@ ./plugins/$*

# What the interop tests use is a Debian package each; a test whose program is
# missing says so and is skipped, so name what is missing before the run too.
PROGRAMS := swaks curl mbsync fetchmail openssl doveadm postfix opendkim rspamd
test: plugins
	@for p in $(PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$p >/dev/null || echo "missing: $$p (its interop tests are skipped; .ci/run names the Debian packages)"; done
	$(GO) vet ./...
	$(GO) test -race -timeout 20m ./...

bench: build
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./core/bench -quick

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

clean:
	rm -rf .build plugins/build/*.wasm
