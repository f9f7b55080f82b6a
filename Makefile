# make demo, make test: the two commands. Both install what they need first and say so.
# Everything Python goes into .venv; Debian packages are installed by name, only those that are missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BPF_SOURCES := $(wildcard lbnode/dataplane/xdp/bpf/*.c lbnode/dataplane/xdp/bpf/*.h)
BPF_OBJECTS := $(patsubst %.c,%.o,$(wildcard lbnode/dataplane/xdp/bpf/*.bpf.c))
PROTO := lbnode/store/etcd_pb2.py

BUILD_PACKAGES := clang libbpf-dev libbpf1 python3-venv
LAB_PACKAGES := iproute2 procps iputils-ping curl etcd-server etcd-client nginx-light
TEST_PACKAGES := $(LAB_PACKAGES) keepalived ipvsadm frr chromium ethtool iputils-arping tcpdump bpftool user-mode-linux kmod
BENCH_PACKAGES := $(LAB_PACKAGES) haproxy keepalived nftables wrk user-mode-linux kmod
OLDEST_PACKAGES := qemu-system-x86 gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev kmod ethtool iproute2

.DEFAULT_GOAL := help
.PHONY: help check bpf test test-reference test-oldest-kernel sim soak soak-parsers soak-packets demo lab bench bench-failover clean packages-lab packages-test packages-bench packages-oldest

help:
	@echo "make demo         the two-gateway lab, a failover under load, then the web UI (root); ONCE=1 exits afterwards"
	@echo "make test         everything; without root it runs what needs none and names what it skipped"
	@echo "make test-reference  lbadm and the schedulers beside captures of ipvsadm and IPVS (LBNODE_REFERENCE: another folder)"
	@echo "make test-oldest-kernel  the BPF objects in Debian 12's Linux 6.1, or in LBNODE_OLDEST_KERNEL=FILE, and SCTP and VLANs"
	@echo "                  with real traffic in 6.1, in a virtual machine (root)"
	@echo "make check        lint, format, types, import direction, unit and simulation tests (seconds, no root)"
	@echo "make bpf          compile the BPF programs, and what the kernel's verifier makes of each: states, stack, time (root)"
	@echo "make sim          elections under random faults, as figures: CLUSTER_SECONDS=200000 SEED=1; PROFILE= NUMBER= tell one"
	@echo "make soak         the same for 50 million cluster-seconds (hours on all cores), soak-parsers and soak-packets"
	@echo "make soak-parsers 10^9 mutated VRRP, ARP and ND packets against the election's parsers (hours on all cores)"
	@echo "make soak-packets 10^8 mutated packets, each judged; 10^8 on two CPUs at once (root; about an hour)"
	@echo "make lab          the lab, until Ctrl-C (root)"
	@echo "make bench        performance beside a floor and peers, as ratios (root)"
	@echo "make bench-failover  failover of lbnode and keepalived in every pairing, side by side (root): RUNS=20,"
	@echo "                  INTERVALS=\"1000 100 30 10\" in ms, PAIRS=, FAULTS= (hours; make bench has 5 runs at 100 ms);"
	@echo "                  RESULTS=FILE keeps each run and goes on from those it has; AT_ONCE=4 pairs at a time (for 1 s);"
	@echo "                  CALM=600: role moves without any fault in so many seconds of busy cores"
	@echo "make clean        remove .venv and everything built"

# While this file exists, Debian's packages do not start their services (nginx, etcd, keepalived, haproxy): only their
# programs are wanted here.
POLICY := /usr/sbin/policy-rc.d

# $(call install,PACKAGES): says what it installs, installs only what is missing, names it when it may not.
define install
@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q ' installed' || echo $$p; done); \
if [ -n "$$missing" ]; then \
  if [ "$$(id -u)" != 0 ]; then echo "missing Debian packages (not root, so not installed):" $$missing; \
  else echo "installing Debian packages:" $$missing; \
    if [ ! -e $(POLICY) ]; then trap 'rm -f $(POLICY)' EXIT INT TERM; printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); fi; \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi; fi
endef

packages-build:
	$(call install,$(BUILD_PACKAGES))
packages-lab:
	$(call install,$(BUILD_PACKAGES) $(LAB_PACKAGES))
packages-test:
	$(call install,$(BUILD_PACKAGES) $(TEST_PACKAGES))
packages-bench:
	$(call install,$(BUILD_PACKAGES) $(BENCH_PACKAGES))
packages-oldest:
	$(call install,$(OLDEST_PACKAGES))

$(STAMP): pyproject.toml | packages-build
	@echo "installing Python packages into $(VENV) (see pyproject.toml)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade pip
	@$(BIN)/pip install -q --disable-pip-version-check -e . --group dev
	@touch $@

$(BPF_OBJECTS) $(PROTO) &: $(BPF_SOURCES) lbnode/store/etcd.proto lbnode/build_hook.py $(STAMP)
	@echo "compiling the BPF object and the etcd messages"
	@$(BIN)/python -P lbnode/build_hook.py
	@touch -c $(BPF_OBJECTS) $(PROTO)

.PHONY: built
built: $(STAMP) $(BPF_OBJECTS) $(PROTO)

check: built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror lbnode/dataplane/xdp/bpf/*.[hc]
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not campaign" tests/unit tests/sim

bpf: built
	@$(BIN)/python -m tests.packets.verifier

# Daemons, the network and real time: these tests run one at a time, on a machine that does nothing else.
REAL_TIME := $(addprefix tests/,e2e netns node web)
# These wait most of the time, for etcd, leases and time-outs.
WAITING := $(addprefix tests/,contracts health sync)
test: packages-test built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror lbnode/dataplane/xdp/bpf/*.[hc]
	$(BIN)/mypy
	$(BIN)/lint-imports
	@failed=0; set -x; \
	$(BIN)/pytest -q --durations=15 -n 2 --no-loadscope-reorder $(addprefix --ignore=,$(WAITING) $(REAL_TIME) tests/vm) || failed=1; \
	$(BIN)/pytest -q --durations=15 -n 4 --no-loadscope-reorder $(WAITING) || failed=1; \
	$(BIN)/pytest -q --durations=15 $(REAL_TIME) || failed=1; exit $$failed

test-reference: built
	$(BIN)/python -m tests.reference

# The kernel's package is unpacked, not installed.
OLDEST_KERNEL := .build/oldest-kernel/vmlinuz
$(OLDEST_KERNEL):
	mkdir -p $(@D)
	cd $(@D) && apt-get download -qq $$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $$2}')
	cd $(@D) && dpkg-deb -x linux-image-*.deb . && rm linux-image-*.deb
	/usr/sbin/depmod -b $(@D) $$(ls $(@D)/lib/modules)
	cp $(@D)/boot/vmlinuz-6.1.* $@

test-oldest-kernel: built packages-oldest $(OLDEST_KERNEL)
	$(BIN)/pytest -q tests/packets/test_oldest_kernel.py tests/vm

SEED ?= 1
CLUSTER_SECONDS ?= 200000
sim: built
	$(BIN)/python -m tests.sim.election --cluster-seconds $(CLUSTER_SECONDS) --seed $(SEED) \
	  $(if $(PROFILE),--profile $(PROFILE)) $(if $(NUMBER),--number $(NUMBER))

soak: CLUSTER_SECONDS = 50000000
soak: sim soak-parsers soak-packets

# Those of make test are the first million.
soak-parsers: built
	LBNODE_PARSER_FUZZ=1000000000 $(BIN)/pytest -q -s --timeout 0 tests/unit/test_election_fuzz.py

# Root. Seeds are those of make test, so that what it finds is found again.
soak-packets: built
	LBNODE_FUZZ=100000000 LBNODE_STRESS=100000000 LBNODE_TRUTH=10000000 $(BIN)/pytest -q -s --timeout 0 \
	  tests/packets/test_fuzz.py tests/packets/test_fuzz_syn_proxy.py tests/packets/test_concurrency.py tests/packets/test_local_ports.py tests/packets/test_truth.py

demo: packages-lab built
	$(BIN)/lbnode demo $(if $(ONCE),--once)

lab: packages-lab built
	$(BIN)/lbnode lab up --wait

bench: packages-bench built
	$(BIN)/python -m tests.bench

RUNS ?= 20
bench-failover: packages-bench built
	$(BIN)/python -m tests.bench.failover --runs $(RUNS) $(if $(INTERVALS),--intervals $(INTERVALS)) \
	  $(if $(PAIRS),--pairs $(PAIRS)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(CALM),--calm $(CALM)) \
	  $(if $(RESULTS),--results $(RESULTS)) $(if $(AT_ONCE),--at-once $(AT_ONCE))

clean:
	rm -rf $(VENV) $(BPF_OBJECTS) lbnode/store/etcd_pb2.py lbnode/store/etcd_pb2.pyi .mypy_cache .ruff_cache .pytest_cache
