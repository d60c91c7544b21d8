# Sampan's commands. `make help` lists them.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 0

VERSION  ?= 1.37.2
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DIRTY    := $(shell test -z "$$(git status --porcelain 2>/dev/null)" && echo clean || echo dirty)
DATE     := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)
V        := github.com/sampan-dev/sampan/api
KV       := -X k8s.io/component-base/version
LDFLAGS  := -s -w $(KV).gitVersion=v$(VERSION) $(KV).gitMajor=1 $(KV).gitMinor=37 $(KV).gitTreeState=$(DIRTY) $(KV).gitCommit=$(REVISION) $(KV).buildDate=$(DATE) -X $(V).gitVersion=v$(VERSION)+sampan.$(REVISION) -X $(V).gitCommit=$(REVISION) -X $(V).gitTreeState=$(DIRTY) -X $(V).buildDate=$(DATE)

# What the carried programs say of themselves: the release, not the commit, so
# that they are not built anew for every one.
CARRIED_VERSION := $(KV).gitVersion=v$(VERSION) $(KV).gitMajor=1 $(KV).gitMinor=37 $(KV).gitTreeState=clean

include embedded/Makefile.inc

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

.PHONY: build
build: embedded ## bin/sampan, one static binary
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/sampan ./cmd/sampan

.PHONY: deps
deps: ## install what is missing from Debian's packages
	hack/deps.sh

.PHONY: demo
demo: deps build ## a cluster, nginx × 10, and what to try next
	hack/demo.sh

.PHONY: test
test: deps build lint ## all tests; those that start nodes need root and are skipped without it
	$(GO) test $$($(GO) list ./... | grep -v /e2e)
	$(GO) test ./e2e/... -p 1 -short -count=1 -timeout 25m -parallel 3
	CGO_ENABLED=1 $(GO) test -race ./kit/... ./storage/... ./client/... ./apiserver/... ./controller ./scheduler

.PHONY: unprivileged
unprivileged: ## the unit tests as a user without any right; those that need root say so and are skipped
	$(GO) test -exec $(CURDIR)/hack/unprivileged.sh $$($(GO) list ./... | grep -v /e2e)

.PHONY: e2e
e2e: deps build ## all scenes on real clusters, those of several machines too
	hack/deps.sh tests
	$(GO) test ./e2e/... -p 1 -count=1 -timeout 60m -parallel 3 -v

COUNT ?= 20
PKG ?= $$($(GO) list ./... | grep -v -e /e2e -e /bench)
.PHONY: stress
stress: ## each unit test many times over, to find those that fail by chance; COUNT=20 PKG=…
	$(GO) test -count=$(COUNT) -failfast -timeout 60m $(PKG)

FUZZTIME ?= 30s
FUZZ ?= .
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME=30s each; FUZZ=pattern of room and target
	hack/fuzz.sh '$(FUZZTIME)' '$(FUZZ)'

.PHONY: bench
bench: build ## figures as JSON lines
	$(GO) run ./bench

NODES ?= 2
PROCS ?= 8
.PHONY: conformance
conformance: deps build ## the official conformance suite; FOCUS=… SKIP=… NODES=2 PROCS=8; docs/conformance.md
	cd conformance && $(GO) run . run -nodes $(NODES) -procs $(PROCS) -focus '$(FOCUS)' -skip '$(SKIP)'

.PHONY: published
published: ## the suite that Kubernetes publishes for storage, on our stores
	cd conformance/published && $(GO) test .

.PHONY: interop
interop: deps build ## programs of others, built from their Go modules, on a fresh cluster; ONLY=…; docs/interop.md
	cd interop && $(GO) run . run -only '$(ONLY)'

.PHONY: lint
lint: ## formatting, vet, and the house rules
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) test ./tidy

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
