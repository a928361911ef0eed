# A thin front for CMake: `make help` lists what is here. PRESET is one of release, debug, clang,
# asan-ubsan, tsan (CMakePresets.json).
PRESET  ?= release
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)
PREFIX  ?= /usr/local
DESTDIR ?=

.PHONY: all build deps test demo bench sanitize warnings completions install clean help
all: build

build: ## build/PRESET/quern (PRESET=release, debug, clang, asan-ubsan, tsan)
	@command -v cmake > /dev/null || { echo "cmake is missing: make deps" >&2; exit 1; }
	@mkdir -p build
	@cmake --preset $(PRESET) > build/$(PRESET).log 2>&1 || \
	  { cat build/$(PRESET).log; echo "configuring failed; is a library missing? make deps" >&2; exit 1; }
	@cmake --build --preset $(PRESET) -j $(JOBS)

deps: ## install the Debian packages that quern needs and that are missing
	@sh tools/deps.sh

test: deps ## deps, build, run every test
	@$(MAKE) --no-print-directory build
	@ctest --preset $(PRESET) -j $(JOBS)

demo: deps ## deps, build, show the bundled models at work
	@$(MAKE) --no-print-directory build
	@sh tools/demo.sh build/$(PRESET)/quern

bench: build ## speed of the bundled models on this machine
	@sh tools/bench.sh build/$(PRESET)/quern

sanitize: ## the tests under address, undefined-behaviour and thread sanitizers
	@$(MAKE) --no-print-directory test PRESET=asan-ubsan
	@$(MAKE) --no-print-directory test PRESET=tsan

warnings: ## build with gcc and with clang, warnings are errors
	@$(MAKE) --no-print-directory build PRESET=debug
	@$(MAKE) --no-print-directory build PRESET=clang

completions: build ## rewrite completions/ from the program's own help
	@sh tools/completions.sh build/$(PRESET)/quern

# Configured afresh, because prefix-dependent files are made then; the objects are reused.
install: ## install under DESTDIR and PREFIX (default /usr/local)
	@$(MAKE) --no-print-directory build
	@cmake --preset $(PRESET) -DCMAKE_INSTALL_PREFIX=$(PREFIX) > build/$(PRESET).log 2>&1 || \
	  { cat build/$(PRESET).log; exit 1; }
	@DESTDIR=$(DESTDIR) cmake --install build/$(PRESET)

clean: ## remove build/
	@rm -rf build

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
