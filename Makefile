# `make` alone lists the commands.

ENGINE = embedded/fetch-engine.sh
HELM_VERSION = v3.22.0
HELM = $(CURDIR)/target/tools/helm-$(HELM_VERSION)/helm
BENCH_SETTINGS = BENCH_PACKETS,BENCH_ROUNDS,BENCH_CONNECTIONS,BENCH_LIVE_PACKETS,BENCH_ONLY,BENCH_DIR

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show the graph of real traffic on this machine (DEMO_SECONDS=30 ends by itself)
	@deploy/demo/demo.sh

.PHONY: build
build: ## Build everything (target/debug/flowtrail)
	@deploy/setup.sh build
	cargo build --workspace

.PHONY: release
release: ## Build the optimised binary (target/release/flowtrail)
	@deploy/setup.sh build
	cargo build --release --bin flowtrail

.PHONY: engine
engine: ## Get the embedded ClickHouse engine once, into ~/.cache/flowtrail
	@deploy/setup.sh build
	@$(ENGINE)

.PHONY: test
test: engine ## Run all tests but those that need a Kafka broker (root, for network namespaces)
	@deploy/setup.sh demo test golden
	cargo build --workspace
	cargo test --workspace --no-fail-fast

.PHONY: test-kafka
test-kafka: engine ## Run the distributed shape through a real Apache Kafka broker (Java 17, Maven)
	@deploy/setup.sh demo kafka
	cargo build --workspace --bins --tests
	@# Both wait more than they work.
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	cargo test --workspace --test exactly_once -- --ignored --nocapture >"$$log" 2>&1 & exactly_once=$$!; \
	cargo test --workspace --test kafka --test outage --test secure --test sides -- --ignored --nocapture; \
	others=$$?; wait $$exactly_once; exactly_once=$$?; \
	cat "$$log"; exit $$((others | exactly_once))

.PHONY: test-grafana-client
test-grafana-client: engine ## Ask `up` as Grafana's ClickHouse data source does, with clickhouse-go (Go 1.26, fetches modules)
	@deploy/setup.sh build
	@command -v go >/dev/null || { echo "install Go 1.26 or newer" >&2; exit 1; }
	cargo build --workspace --bins
	@cd embedded/tests/clickhouse-go && \
		FLOWTRAIL_BINARY="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/flowtrail" \
		FLOWTRAIL_CAPTURE="$(CURDIR)/capture/tests/golden/answered_late.pcap" \
		FLOWTRAIL_ENGINE="$$($(CURDIR)/$(ENGINE))" go test -count=1 ./...

.PHONY: test-openapi
test-openapi: engine ## Hold the API of a running service against its description (Python 3.10, fetches schemathesis)
	@deploy/setup.sh build
	cargo build --workspace --bins
	@FLOWTRAIL_ENGINE="$$($(ENGINE))" query/tests/openapi.sh "$${CARGO_TARGET_DIR:-target}"

.PHONY: test-helm
test-helm: ## Lint and render the Helm chart, hold it against deploy/helm/golden (Go, fetches Helm once)
	@deploy/setup.sh build helm
	@[ -x "$(HELM)" ] || GOBIN=$(dir $(HELM)) go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	FLOWTRAIL_HELM=$(HELM) cargo test --workspace --test chart -- --include-ignored

.PHONY: test-compose
test-compose: ## Ask Docker Compose what it makes of docker-compose.yml (Docker with Compose 2; starts nothing)
	@docker compose version >/dev/null 2>&1 || { echo "install Docker with its Compose plugin (2.24 or newer)" >&2; exit 1; }
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && \
		cp -R --parents docker-compose.yml .env.example deploy "$$copy" && cd "$$copy" && \
		! docker compose config --quiet 2>unset && grep -q 'run deploy/docker/secrets.sh' unset && \
		deploy/docker/secrets.sh && docker compose --profile demo config --quiet && echo "docker-compose.yml: fine"

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZ_SECONDS each (60), into fuzz/corpus (cargo-fuzz, a C++ compiler)
	@cargo fuzz --version >/dev/null || { echo "install it: cargo install cargo-fuzz" >&2; exit 1; }
	cd fuzz && for target in $$(cargo fuzz list); do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$${FUZZ_SECONDS:-60} -max_len=4096 || exit 1; done

.PHONY: golden
golden: ## Record the golden captures anew (root; CASES="normal vlan" for some)
	@deploy/setup.sh build demo golden
	cargo run -p flowtrail-e2e --bin flowtrail-golden -- $(CASES)

.PHONY: golden-records
golden-records: ## Derive the expected records from the captures and their reviewed events
	@deploy/setup.sh build
	cargo run -p flowtrail-e2e --bin flowtrail-golden -- --derive

.PHONY: bench-capture
bench-capture: ## Measure capture beside softflowd and tcpdump, some minutes (root; BENCH_PACKETS=…)
	@deploy/setup.sh build bench
	cargo build --release --bin flowtrail --bin flowtrail-bench-capture
	@root=$$([ "$$(id -u)" -eq 0 ] || echo sudo --preserve-env=$(BENCH_SETTINGS)); \
	PATH=$$PATH:/usr/sbin:/sbin exec $$root $${CARGO_TARGET_DIR:-target}/release/flowtrail-bench-capture

.PHONY: bench-ingest
bench-ingest: engine ## Measure ingest beside the engine's own rate, some minutes (Java 17, Maven; BENCH_RECORDS=…)
	@deploy/setup.sh build kafka
	cargo build --release --bin flowtrail --bin flowtrail-bench-ingest
	@exec $${CARGO_TARGET_DIR:-target}/release/flowtrail-bench-ingest

.PHONY: bench-query
bench-query: engine ## Measure graphs over up to a month of history, half an hour or more (BENCH_ROWS=…)
	@deploy/setup.sh build
	cargo build --release --bin flowtrail --bin flowtrail-bench-query
	@exec $${CARGO_TARGET_DIR:-target}/release/flowtrail-bench-query

.PHONY: lint
lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
