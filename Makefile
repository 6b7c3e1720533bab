# The menu: make help. LAB names a preset or a lab file; the default is quotes.
LAB ?= quotes
FEDLAB = bin/fedlab
TOOL = go tool -modfile=.ci/tools/go.mod
export LAB

.PHONY: help
help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the fedlab command into bin/
	@go build -trimpath -o $(FEDLAB) ./cmd/fedlab

.PHONY: lab-up
lab-up: build ## Set up this machine, and bring the lab up
	@$(FEDLAB) setup && $(FEDLAB) up

.PHONY: lab-down
lab-down: ## Remove the lab and all traces of it
	@[ -x $(FEDLAB) ] || $(MAKE) --no-print-directory build
	@$(FEDLAB) down

.PHONY: status
status: build ## Show how the lab is
	@$(FEDLAB) status

.PHONY: test
test: build ## Run all tests, the end-to-end suite on real clusters among them
	@$(FEDLAB) setup --for-tests && $(FEDLAB) images build
	@FEDLAB_SPIRE_SERVER=$$($(FEDLAB) images path spire-server) && FEDLAB_SPIRE_AGENT=$$($(FEDLAB) images path spire-agent) && FEDLAB_PEBBLE=$$($(FEDLAB) images path pebble) && FEDLAB_OIDC_DISCOVERY_PROVIDER=$$($(FEDLAB) images path oidc-discovery-provider) && export FEDLAB_SPIRE_SERVER FEDLAB_SPIRE_AGENT FEDLAB_PEBBLE FEDLAB_OIDC_DISCOVERY_PROVIDER && $(TOOL) gotestsum --format pkgname-and-test-fails -- -race -shuffle=on -timeout 20m $$(go list ./... | grep -v '/e2e$$')
	@$(MAKE) --no-print-directory e2e

# Of the scenarios, each submission runs those with the label ci. SEED is that of
# the order, as an earlier run has printed it.
E2E = FEDLAB=$(FEDLAB) go tool ginkgo run $(if $(SEED),--seed=$(SEED)) --randomize-all --fail-on-pending --fail-on-empty --junit-report=junit.xml --output-dir=evidence

.PHONY: e2e
e2e: build ## Run the end-to-end suite on a lab of its own
	@$(E2E) --timeout=65m --label-filter='(!scenario || ci) && !night' ./e2e

.PHONY: e2e-all
e2e-all: build ## Run all scenarios twice and what must break them; kills, a newcomer's first hour, an earlier fedlab; all shapes, guides, ways to federate and versions of SPIRE
	@$(E2E) --timeout=100m --label-filter='scenario && !mutation && !kills && !night' ./e2e
	@$(E2E) --timeout=100m --label-filter='mutation' ./e2e
	@$(E2E) --timeout=100m --label-filter='kills || newcomer || dist || earlier' ./e2e
	@$(E2E) --timeout=100m --label-filter='night && !newcomer && !dist && !earlier && !matrix && !endpoints && !skew && !kinds && !doctor' ./e2e
	@$(E2E) --timeout=100m --label-filter='night && (matrix || endpoints || kinds)' ./e2e
	@$(E2E) --timeout=100m --label-filter='doctor' ./e2e
	@$(MAKE) --no-print-directory skew

.PHONY: skew
skew: build ## Run scenarios across a federation of three versions of SPIRE
	@$(E2E) --timeout=100m --label-filter=skew ./e2e

.PHONY: dist
dist: ## Build the command for linux and darwin into dist/, with SHA256SUMS
	@go run ./e2e/dist

.PHONY: bench
bench: ## Measure the lab against bare kind clusters
	@go run -trimpath ./e2e/bench

# What has golden files or generates documents says in its tests when they are stale; the live
# page says how long it takes, which means something without the race detector alone.
# Tests that need SPIRE's programs or PostgreSQL are left to make test, in CI, too.
.PHONY: verify
verify: ## Format, vet, lint; module files, generated and golden files current
	@test -z "$$(gofmt -l $$(git ls-files '*.go') | tee /dev/stderr)"
	@go mod tidy -diff
	@go vet ./...
	@$(TOOL) golangci-lint run ./...
	@CI= go test . ./cmd/... ./docs ./charts ./lab ./lab/config ./lab/metallb
	@CI= go test -run 'TestReference|TestNodeFiles' ./lab/images/node ./lab/images/recipe
	@CI= go test -run TestFiftyTrustDomains ./lab/live
