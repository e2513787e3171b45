# Tests, found by their place (see CONTRIBUTING.md):
#   tests/{unit,formats,kernels}/test_NAME.c   a cmocka program each
#   tests/{cli,contract,formats}/*.sh, *.py    the executable ones; others are parts of them
#   tests/fuzz/fuzz_NAME.c                     replayed over tests/fuzz/corpus/NAME
#   tests/cuda/test_NAME.cu, .cpp, *.sh, *.py  with CUDA=1 (on a GPU) and CUDA=emulated
#   tests/cuda_on_cpu/test_NAME.cpp, *.sh      with CUDA=emulated
#   scripts/check-{layers,circles,format}      the lint of the tree
# CTest runs them all; each gets FKM, SRC, CONFIG, PYTHON and an empty directory TEST_TMP.

PYTHON ?= /usr/bin/python3
CTEST ?= ctest
CTEST_JOBS ?= 2
TESTS ?=

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c tests/formats/test_*.c tests/kernels/test_*.c))
FUZZ_SRC := $(sort $(filter-out $(if $(filter 1,$(HAVE_HDF5)),,%/fuzz_hdf5.c),\
	$(wildcard tests/fuzz/fuzz_*.c)))
SCRIPT_TESTS := $(sort $(shell find tests/cli tests/contract tests/formats -maxdepth 1 -type f \
	\( -name '*.sh' -o -name '*.py' \) -perm -u+x 2>/dev/null))
LINT_TESTS := scripts/check-layers scripts/check-circles scripts/check-format

# The emulated build tests the backend and nothing else: the rest is the same as without it.
CUDA_TEST_SRC := $(if $(filter 1,$(HAVE_CUDA)),$(sort $(wildcard tests/cuda/test_*.cu tests/cuda/test_*.cpp)))
CUDA_SCRIPTS := $(if $(filter 1,$(HAVE_CUDA)),$(sort $(shell find tests/cuda -maxdepth 1 -type f \
	\( -name '*.sh' -o -name '*.py' \) -perm -u+x 2>/dev/null)))
ifeq ($(filter emulated,$(CUDA))$(filter 1,$(HAVE_SM90A)),) # nothing to compile them for
  CUDA_TEST_SRC := $(filter-out %_sm90a.cu,$(CUDA_TEST_SRC))
endif
ifeq ($(CUDA),emulated)
  CUDA_TEST_SRC += $(sort $(wildcard tests/cuda_on_cpu/test_*.cpp))
  UNIT_SRC :=
  FUZZ_SRC :=
  LINT_TESTS :=
  SCRIPT_TESTS := $(filter-out %/seeding.py,$(filter tests/contract/%,$(SCRIPT_TESTS))) \
	$(sort $(wildcard tests/cuda_on_cpu/*.sh))
endif
# Those that TESTS names, or all. (planted_faults.sh runs those of the GPU backend.)
wanted = $(if $(TESTS),$(shell for t in $(1); do \
	echo "$$t $$t" | sed -E 's,^[^ ]*/([^/ ]*/)(test_)?(fuzz_)?([^/ ]*)\.[a-z]* ,\1\4 ,'; \
	done | awk '$$1 ~ "$(TESTS)" { print $$2 }'),$(1))
UNIT_BIN := $(patsubst %.c,$(B)/%,$(call wanted,$(UNIT_SRC)))
FUZZ_BIN := $(patsubst %.c,$(B)/%,$(call wanted,$(FUZZ_SRC)))
CUDA_TEST_BIN := $(addprefix $(B)/,$(basename $(if $(call wanted,$(filter %/planted_faults.sh,$(SCRIPT_TESTS))),\
	$(CUDA_TEST_SRC),$(call wanted,$(CUDA_TEST_SRC)))))
SCRIPT_TESTS += $(CUDA_SCRIPTS)

# Every header compiles alone. Included template files (*_tmpl.h) are no headers in that sense.
HEADERS := $(sort $(filter-out %_tmpl.h,$(wildcard cmd/*.h src/*.h src/base/*.h src/cpu/*.h formats/*.h cuda/*.h)))
HEADERS_OK := $(if $(TESTS),,$(HEADERS:%.h=$(B)/tests/headers/%.ok))

# Objects of cmd/ but for main(), for tests of the option tables.
$(B)/tests/libcmd.a: $(filter-out %/main.o,$(CMD_OBJ))
	@mkdir -p $(@D)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^

TEST_LIBS := $(B)/tests/libcmd.a $(B)/libfkm.a

$(UNIT_BIN): %: %.o $(TEST_LIBS)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $< $(TEST_LIBS) -lcmocka $(ALL_LDLIBS)

$(B)/tests/cuda/test_%: $(B)/tests/cuda/test_%.cu.o $(TEST_LIBS)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $< $(TEST_LIBS) -lcmocka $(ALL_LDLIBS)
$(B)/tests/cuda/test_%: $(B)/tests/cuda/test_%.cpp.o $(TEST_LIBS)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $< $(TEST_LIBS) -lcmocka $(ALL_LDLIBS)
$(B)/tests/cuda_on_cpu/test_%: $(B)/tests/cuda_on_cpu/test_%.cpp.o $(CUO_OBJ)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $^ $(LDLIBS)

# With CONFIG=fuzz a target is a libFuzzer program, else it replays files and directories.
ifeq ($(CONFIG),fuzz)
$(FUZZ_BIN): %: %.o $(TEST_LIBS)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(TEST_LIBS) $(ALL_LDLIBS)
else
$(FUZZ_BIN): %: %.o $(B)/tests/fuzz/replay.o $(TEST_LIBS)
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $< $(B)/tests/fuzz/replay.o $(TEST_LIBS) $(ALL_LDLIBS)
endif

# It makes the files by the library that fkm only loads.
$(B)/tests/fuzz/fuzz_hdf5: ALL_LDLIBS += $(shell $(PKG_CONFIG) --libs $(HDF5_PKG))

# Its object may lie in another build, and be there before anything of this one is.
$(B)/tests/gen: $(O)/tests/gen.o
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(ALL_LDFLAGS) -o $@ $< $(ALL_LDLIBS)

$(HEADERS_OK): $(B)/tests/headers/%.ok: %.h $(O)/cflags
	@mkdir -p $(@D)
	@printf '#include "%s"\n' $< | $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -I. -fsyntax-only -x c - \
		|| { echo '$<: does not compile alone' >&2; exit 1; }
	@touch $@

-include $(UNIT_BIN:=.d) $(addprefix $(B)/,$(CUDA_TEST_SRC:=.d)) $(FUZZ_BIN:=.d) $(O)/tests/gen.d $(B)/tests/fuzz/replay.d

# ---- targets ----

LIST_TESTS = EMULATED=$(filter emulated,$(CUDA)) tests/list-tests $(B) $(CONFIG) $(PYTHON) $(UNIT_SRC) \
	$(CUDA_TEST_SRC) $(FUZZ_SRC) $(SCRIPT_TESTS) $(LINT_TESTS)
$(B)/CTestTestfile.cmake: FORCE
	@mkdir -p $(@D)
	@$(LIST_TESTS) > $@

# For scripts/check, which runs several suites as one: the list of this one, on standard output.
.PHONY: list-tests
list-tests:
	@rm -rf $(B)/tests/tmp
	@TESTS='$(TESTS)' SUITE='$(SUITE)' $(LIST_TESTS)

.PHONY: tests check fuzz cuda-tests
cuda-tests: $(CUDA_TEST_BIN)
tests: $(B)/fkm $(UNIT_BIN) $(CUDA_TEST_BIN) $(if $(filter fuzz,$(CONFIG)),,$(FUZZ_BIN)) $(B)/tests/gen \
	$(if $(filter coverage,$(CONFIG)),,$(HEADERS_OK)) \
	$(if $(filter build/release,$(B)),faults)

# The fault layer is in a build of its own: tests/cli/torture.sh. By gcc, whose AddressSanitizer is a
# library that it can stand in front of.
.PHONY: faults
faults:
	$(Q)$(MAKE) --no-print-directory -s CONFIG=faults B=build/faults CC=gcc CUDA=0 build/faults/fkm

check: tests $(B)/CTestTestfile.cmake
	@rm -rf $(B)/tests/tmp
	cd $(B) && $(CTEST) --output-on-failure --no-label-summary -j$(CTEST_JOBS) \
		$(if $(TESTS),-R '$(TESTS)') $(CTESTFLAGS)

ifeq ($(CONFIG),fuzz)
fuzz: $(FUZZ_BIN)
else
fuzz:
	$(MAKE) CONFIG=fuzz CC=clang fuzz
endif
