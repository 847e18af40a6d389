# What one can do with a clone. The work is in hack/, so that each step can be run by hand too.
#   PERENNIAL_CLUSTER  name of the cluster (default: perennial); several run side by side
#   KUBECONFIG or PERENNIAL_CONTEXT  use this cluster instead of one of our own
.DEFAULT_GOAL := help
.PHONY: help build images cluster cluster-down quickstart quickstart-clean test sim mutants verdicts fuzz bench lint crds

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## target/release/perennial and, beside it, kubectl-perennial
	cargo build --release --locked --bins

images: ## the operator's and the quickstart's image, loaded into the cluster if there is one
	@hack/images

cluster: ## a Kubernetes on this machine: built from source once, then up in seconds; `hack/cluster/k` is its kubectl
	@hack/cluster/up

cluster-down: ## removes it
	@hack/cluster/down

quickstart: ## the whole story on real data, about 12 minutes
	@hack/quickstart

quickstart-clean: ## removes what it made
	@quickstart/clean

test: ## all suites; `hack/test SUITE… [-- FILTER]` runs some
	@hack/test

verdicts: ## 10,000 simulated rollouts: how often gates are wrong, and how soon they find what is worse; `ROLLOUTS=…`
	@hack/verdicts

sim: ## random lives of releases: SEEDS=100000 [START=…] runs them, SEED=n replays one
	@hack/sim

mutants: ## plants bugs and lets the simulator find each
	@hack/mutants

fuzz: ## broken input for every reader and parser, SECONDS=60 for each
	@hack/fuzz $(SECONDS)

bench: ## the gateway beside other proxies, drift beside Evidently, 1,000 rollouts beside Argo Rollouts
	@hack/bench

lint: ## format, clippy, dependencies, scripts, chart
	@hack/lint

crds: ## writes crds/ from the types
	cargo run --quiet --locked --bin perennial -- crds --out crds
	cargo run --quiet --locked --bin perennial -- crds --out charts/perennial/files/crds
