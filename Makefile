# Bare `make` lists the targets. CI calls these and nothing else.
export CGO_ENABLED ?= 0
GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
DURATION    ?= 10m
STORE       ?= Redis
BIN         := bin/lovage
# What runs tasks, apart from the drivers.
CORE        := . ./backend ./broker ./control ./events ./memory ./lovagetest ./worker/...

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## see it run: two workers, real input, a kill -9, under a minute
	$(BIN) demo

build: ## build the command into bin/
	$(GO) build -o $(BIN) ./cmd/lovage

test: deps ## vet and every test, a package at a time: each has servers of its own; then the core with -race
	$(GO) vet ./...
	$(GO) test -p 1 ./...
	CGO_ENABLED=1 $(GO) test -race -p 1 $(CORE)

race: deps ## every test under the race detector
	CGO_ENABLED=1 $(GO) test -race ./...

fuzz: ## run each fuzz target for FUZZTIME (20s)
	scripts/fuzz.sh $(FUZZTIME)

cover: ## coverage by function, lowest first, in cover.out
	$(GO) test -coverprofile=cover.out -coverpkg=./... ./...
	$(GO) tool cover -func=cover.out | sort -k3 -n

lint: ## formatting, vet and staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run make fmt, these are not formatted:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fmt: ## format the code
	gofmt -w .

interop: deps ## against real Celery: Python on one end, Go on the other
	$(GO) test -count=1 -run Interop ./...

bench: ## measure beside raw loops and peers; installs redis, Celery, postgresql, rabbitmq; ARGS=-short takes a minute or two
	@scripts/deps.sh celery redis postgres rabbitmq
	cd bench && $(GO) run . $(ARGS)

battery: ## the long batteries, some minutes; writes docs/battery.md
	scripts/battery.sh

soak: deps ## a worker at work for DURATION (10m) on STORE (Redis, RabbitMQ), its memory held against a line
	scripts/soak.sh $(DURATION) $(STORE)

deps:
	@scripts/deps.sh celery redis rabbitmq gcc

.PHONY: help demo build test race fuzz cover lint fmt interop bench battery soak deps
.DEFAULT_GOAL := help
