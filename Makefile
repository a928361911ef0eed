# A thin front for CMake: `make help` lists what is here.
PRESET ?= release
JOBS   ?= $(shell nproc)
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: all deps build test demo install clean help bench sanitize
all: deps build

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the Debian packages that quern needs (tools/deps.sh)
	@sh tools/deps.sh

build: ## build/PRESET/quern (PRESET=release debug asan-ubsan tsan)
	@cmake --preset $(PRESET) > build/$(PRESET).log 2>&1 || { cat build/$(PRESET).log; exit 1; }
	@cmake --build --preset $(PRESET) -j $(JOBS)
