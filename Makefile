# fkm: the whole build. `make help` lists targets and variables.

.DEFAULT_GOAL := all

CONFIG ?= release
CUDA   ?= auto
HDF5   ?= auto
V      ?= 0

PREFIX  ?= /usr/local
bindir  ?= $(PREFIX)/bin
mandir  ?= $(PREFIX)/share/man
docdir  ?= $(PREFIX)/share/doc/fkm
INSTALL ?= install
PKG_CONFIG ?= pkg-config

B := build/$(CONFIG)$(if $(filter emulated,$(CUDA)),-emulated)
# Objects of C: all but src/backend.o are the same with and without CUDA=emulated.
O := $(patsubst %-emulated,%,$(B))

# ---- sources, by folder (calls go down only: see CONTRIBUTING.md) ----

BASE_SRC := $(addprefix src/base/,clock.c crc32c.c direct.c distance.c dtype.c exact.c file.c inertia.c \
	log.c mem.c parse_json.c pool.c populate.c status.c stop.c sysinfo.c text.c thread.c)
CPU_SRC := $(addprefix src/cpu/,apart.c assign.c backend_cpu.c bounds.c ceilings.c ceilings_amx.c \
	ceilings_avx2.c ceilings_avx512.c ceilings_vnni.c cpuid.c doubt.c head.c keep.c kernels.c kernels_amx.c \
	kernels_amx_int8.c kernels_amx_s8.c kernels_avx2.c kernels_avx2_int8.c kernels_avx2_s8.c \
	kernels_avx512.c kernels_scalar.c kernels_vnni.c kernels_vnni_s16.c kernels_vnni_s8.c nearest.c pack.c picks.c probe.c \
	screen.c store.c update.c)
FORMAT_SRC := $(addprefix formats/,bin.c elements.c foreign.c formats.c npy.c reader.c safetensors.c vecs.c writer.c)
CORE_SRC := $(addprefix src/,backend.c checkpoint.c checksums.c cover.c engine.c exchange.c farthest.c json.c lanes.c lloyd.c \
	label.c lock.c mass.c measure.c options.c output.c plan.c plusplus.c preview.c rng.c scan.c seed.c seed_parallel.c \
	seed_random.c source.c stats.c)
CMD_SRC := $(addprefix cmd/,bench.c centroids.c common_opts.c fit.c info.c labels.c main.c opt.c opt_values.c \
	opt_words.c predict.c print.c progress.c signals.c verify.c)

# ---- optional parts ----

pkg = $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo $(1))
HDF5_PKG := $(or $(call pkg,hdf5-serial),$(call pkg,hdf5))
ZLIB_PKG := $(call pkg,zlib)
ifeq ($(HDF5),auto)
  HAVE_HDF5 := $(if $(HDF5_PKG),$(if $(ZLIB_PKG),1,0),0)
else
  HAVE_HDF5 := $(HDF5)
endif
ifeq ($(HAVE_HDF5),1)
  ifeq ($(HDF5_PKG),)
    $(error HDF5=1, but pkg-config knows neither hdf5-serial nor hdf5: install libhdf5-dev)
  endif
  ifeq ($(ZLIB_PKG),)
    $(error HDF5=1, but pkg-config does not know zlib: install zlib1g-dev)
  endif
  FORMAT_SRC += $(addprefix formats/,h5chunk.c h5file.c h5filter.c h5find.c h5lib.c h5write.c hdf5.c)
  HDF5_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(HDF5_PKG) $(ZLIB_PKG))
  # Loaded when an .h5 is opened (formats/h5lib.h), by the name that linking would have recorded.
  HDF5_SONAME := $(shell lib=$$(mktemp) && $(CC) -shared -nostdlib -Wl,--no-as-needed -o $$lib \
	$$($(PKG_CONFIG) --libs $(HDF5_PKG)) && readelf -d $$lib | \
	sed -n 's/.*NEEDED.*\[\(libhdf5[^]]*\)\]/\1/p' | head -1; rm -f $$lib)
  ifeq ($(HDF5_SONAME),)
    $(error HDF5=1, but linking with $(shell $(PKG_CONFIG) --libs $(HDF5_PKG)) names no libhdf5)
  endif
endif
# CJSON_DIR, for machines without the package: a directory with cJSON.c and cJSON.h, which are compiled
# in, or with cjson/cJSON.h and a built libcjson.
CJSON_DIR ?=
ifeq ($(CJSON_DIR),)
  CJSON_CFLAGS := $(shell $(PKG_CONFIG) --cflags libcjson 2>/dev/null)
  CJSON_LIBS := $(or $(shell $(PKG_CONFIG) --libs libcjson 2>/dev/null),-lcjson)
else ifneq ($(wildcard $(CJSON_DIR)/cJSON.c),)
  CJSON_CFLAGS := -I$(O)/include -I$(O)/include/cjson
  CJSON_OBJ := $(O)/cJSON.o
else
  CJSON_CFLAGS := -I$(CJSON_DIR) -I$(CJSON_DIR)/cjson
  CJSON_LIBS := -L$(CJSON_DIR) -Wl,-rpath,$(abspath $(CJSON_DIR)) -lcjson
endif
ifneq ($(filter -static,$(LDFLAGS)),)
  ifeq ($(HAVE_HDF5),1)
    $(error LDFLAGS=-static: HDF5 is loaded at run time, which a static program cannot do: HDF5=0)
  endif
  ifeq ($(CJSON_DIR)$(findstring /,$(shell $(CC) -print-file-name=libcjson.a)),)
    $(error LDFLAGS=-static: there is no libcjson.a: scripts/fetch-cjson build/cjson, then CJSON_DIR=build/cjson)
  endif
endif

# ---- flags; the user's CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are appended ----

# Enumerations are integer constants here; clang 19 would not have them among doubles.
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wvla -Wno-enum-float-conversion
OPT_release := -O2 -g
OPT_debug := -O0 -g3
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# GCC's frames for use after return, on by default from 13, lack the alignment that vectors of 64 bytes
# need (GCC bug 110027): the program would die of a store.
ifeq ($(findstring clang,$(CC)),)
  OPT_asan += --param asan-use-after-return=0
endif
OPT_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fsanitize=thread
OPT_faults := $(OPT_asan) -DFKM_FAULTS
OPT_coverage := -Og -g --coverage -fprofile-update=atomic
OPT_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
OPT := $(OPT_$(CONFIG))
ifeq ($(OPT),)
  $(error CONFIG=$(CONFIG): expected release, debug, asan, ubsan, tsan, fuzz, faults or coverage)
endif
include cuda/cuda.mk

# No cost that could be measured (81.4 and 82.3 ms, 326 and 324 ms, before and after);
# tests/cli/hardening.sh looks at the result.
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection \
	$(if $(filter x86_64% amd64%,$(shell $(CC) -dumpmachine)),-fcf-protection=full) \
	$(if $(filter release,$(CONFIG)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)

# -ffp-contract=off: a contracted multiply-add would change the bits of the canonical distance.
ALL_CFLAGS := -std=c11 $(WARN) $(OPT) $(HARDEN) -ffp-contract=off -pthread $(CFLAGS)
ALL_CPPFLAGS := -D_GNU_SOURCE -DFKM_HAVE_HDF5=$(HAVE_HDF5) $(CJSON_CFLAGS) \
	$(HDF5_CFLAGS) $(CPPFLAGS)
ALL_LDFLAGS := $(filter -fsanitize% --coverage,$(OPT)) -pie -pthread -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS)
ALL_LDLIBS := $(CJSON_LIBS) $(CUDA_LIBS) -lm -ldl $(LDLIBS)

$(B)/src/backend.o: ISA_FLAGS := -DFKM_HAVE_CUDA=$(HAVE_CUDA)
$(O)/src/scan.o $(O)/formats/h5filter.o: ISA_FLAGS := -O3
$(O)/formats/h5lib.o: ISA_FLAGS := -DFKM_HDF5_SONAME='"$(HDF5_SONAME)"'
# Instruction sets: for these objects only, chosen at run time. No -mfma for the canonical code:
# -ffp-contract=off covers it.
ifneq ($(filter x86_64% amd64%,$(shell $(CC) -dumpmachine)),)
$(O)/src/cpu/kernels_avx2.o: ISA_FLAGS := -mavx2 -mfma -mf16c -O3
$(O)/src/cpu/kernels_avx2_int8.o $(O)/src/cpu/kernels_avx2_s8.o: ISA_FLAGS := -mavx2 -mfma -O3
$(O)/src/cpu/kernels_avx512.o: ISA_FLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c -O3
$(O)/src/cpu/kernels_amx.o: ISA_FLAGS := -mamx-tile -mamx-bf16 -mavx512bf16 -mavx512f -mavx512dq -mavx512bw -mavx512vl -O3
$(O)/src/cpu/kernels_amx_int8.o $(O)/src/cpu/kernels_amx_s8.o: ISA_FLAGS := -mamx-tile -mamx-int8 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -O3
$(O)/src/cpu/kernels_vnni.o $(O)/src/cpu/kernels_vnni_s16.o $(O)/src/cpu/kernels_vnni_s8.o: ISA_FLAGS := -mavx512vnni -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -O3
$(O)/src/cpu/ceilings_avx2.o: ISA_FLAGS := -mavx2 -mfma -O3
$(O)/src/cpu/ceilings_avx512.o: ISA_FLAGS := -mavx512f -O3
$(O)/src/cpu/ceilings_vnni.o: ISA_FLAGS := -mavx512vnni -mavx512f -O3
$(O)/src/cpu/ceilings_amx.o: ISA_FLAGS := -mamx-tile -mamx-bf16 -mamx-int8 -O3
endif
$(O)/src/cpu/kernels_scalar.o $(O)/src/cpu/ceilings.o $(O)/src/cpu/screen.o: ISA_FLAGS := $(if $(filter release,$(CONFIG)),-O3)
# Loops over the rows of a block; roots need not set errno to be vectors.
$(O)/src/cpu/assign.o $(O)/src/cpu/pack.o: ISA_FLAGS := -fno-math-errno $(if $(filter release,$(CONFIG)),-O3)

LIB_SRC := $(BASE_SRC) $(FORMAT_SRC) $(CPU_SRC) $(CORE_SRC)
C_OBJ := $(filter-out %/src/backend.o,$(LIB_SRC:%.c=$(O)/%.o)) $(B)/src/backend.o
LIB_OBJ := $(C_OBJ) $(CUDA_OBJ) $(CJSON_OBJ)
CMD_OBJ := $(CMD_SRC:%.c=$(O)/%.o)
# The fault layer stands in front of libc: its names must be seen by the libraries, too.
ifeq ($(CONFIG),faults)
  FAULT_OBJ := $(O)/src/base/faults.o
  ALL_LDFLAGS += -rdynamic
# It is called before AddressSanitizer has begun.
$(FAULT_OBJ): ISA_FLAGS := -fno-sanitize=all
endif

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $(2);)

.PHONY: all
all: $(B)/fkm
	@echo 'fkm: $(B)/fkm  $(CUDA_NOTE)  HDF5=$(HAVE_HDF5)  CC=$(CC)'

$(B)/fkm: $(CMD_OBJ) $(FAULT_OBJ) $(B)/libfkm.a
	$(call say,LD,$@)$(LINK) $(ALL_LDFLAGS) -o $@ $(CMD_OBJ) $(FAULT_OBJ) $(B)/libfkm.a $(ALL_LDLIBS)

$(B)/libfkm.a: $(LIB_OBJ)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^

# Objects depend on the flags: a stamp changes when they do. Of C: cflags; of all else: flags.
C_FLAGS := $(CC) $(HDF5_SONAME) $(ALL_CPPFLAGS) $(ALL_CFLAGS)
FLAGS := $(C_FLAGS) $(HAVE_CUDA) $(ALL_LDFLAGS) $(ALL_LDLIBS) $(CUDA_FLAGS)
stamp = @mkdir -p $(@D); printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' > $@
$(O)/cflags: FORCE
	$(call stamp,$(C_FLAGS))
$(B)/flags: FORCE
	$(call stamp,$(FLAGS))
.PHONY: FORCE
FORCE:

define compile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ISA_FLAGS) -MMD -MP -c -o $@ $<
endef
$(O)/%.o: %.c $(O)/cflags
	$(compile)
$(B)/src/backend.o: src/backend.c $(O)/cflags $(B)/flags
	$(compile)

ifneq ($(CJSON_OBJ),)
$(O)/include/cjson/cJSON.h: $(CJSON_DIR)/cJSON.h
	@mkdir -p $(@D)
	cp $< $@
$(O)/cJSON.o: $(CJSON_DIR)/cJSON.c $(O)/include/cjson/cJSON.h $(O)/cflags
	$(call say,CC,$<)$(CC) $(OPT) $(HARDEN) $(CFLAGS) -c -o $@ $<
$(C_OBJ) $(CMD_OBJ): | $(O)/include/cjson/cJSON.h
endif

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(FAULT_OBJ:.o=.d)

include tests/tests.mk

# ---- install ----

MAN := $(wildcard man/*.[1-9])
MAN_DIRS := $(sort $(patsubst .%,$(DESTDIR)$(mandir)/man%,$(suffix $(MAN))))

.PHONY: install uninstall
install: $(B)/fkm
	$(INSTALL) -d $(DESTDIR)$(bindir) $(MAN_DIRS) $(DESTDIR)$(docdir)
	$(INSTALL) -m 755 $(B)/fkm $(DESTDIR)$(bindir)/fkm
	set -e; for page in $(MAN); do $(INSTALL) -m 644 $$page $(DESTDIR)$(mandir)/man$${page##*.}/; done
	$(INSTALL) -m 644 README.md LICENSE $(DESTDIR)$(docdir)

uninstall:
	rm -f $(DESTDIR)$(bindir)/fkm
	for page in $(notdir $(MAN)); do rm -f $(DESTDIR)$(mandir)/man$${page##*.}/$$page; done
	rm -f $(DESTDIR)$(docdir)/README.md $(DESTDIR)$(docdir)/LICENSE
	rmdir $(DESTDIR)$(docdir) 2>/dev/null || true

# ---- upkeep ----

.PHONY: dist clean help format lint coverage coverage-cuda
dist:
	git archive --prefix=fkm/ -o fkm.tar.gz HEAD

clean:
	rm -rf build

format:
	scripts/check-format --write

# Which lines and branches the suite and a part of scripts/torture reach; tests/gcovr.cfg says what is
# left out. Tests may fail here: libgcov writes, too, where they forbid it. No UBSan: its checks are
# branches.
COVERAGE_FLAGS := CFLAGS='--coverage -fprofile-update=atomic' LDFLAGS=--coverage \
	OPT_faults='-Og -g -fsanitize=address -fno-omit-frame-pointer --param asan-use-after-return=0 -DFKM_FAULTS'
coverage:
	find build -name '*.gcda' -delete 2>/dev/null || true
	-$(MAKE) CONFIG=coverage check
	$(MAKE) CONFIG=faults B=build/coverage-faults CC=gcc $(COVERAGE_FLAGS) build/coverage-faults/fkm
	-scripts/torture --shallow 60 --seed 1 --fkm build/coverage-faults/fkm
	gcovr --config tests/gcovr.cfg --html-details build/coverage/index.html --fail-under-line 90 \
		--fail-under-branch 80 build/coverage build/coverage-faults

# The GPU backend's, on the emulation.
coverage-cuda:
	find build -name '*.gcda' -delete 2>/dev/null || true
	-$(MAKE) CONFIG=coverage CUDA=emulated check TESTS='^(cuda/|contract/(same|batches|empty|real))'
	gcovr --config tests/gcovr-cuda.cfg --html-details build/coverage-emulated/index.html --fail-under-line 90 \
		--fail-under-branch 80 build/coverage-emulated

lint:
	scripts/check-layers
	scripts/check-circles
	scripts/check-format
	scripts/analyze

help:
	@echo 'make                 build $(B)/fkm'
	@echo 'make check           build and run the test suite (CTest) of this CONFIG'
	@echo 'make install         to DESTDIR, PREFIX=$(PREFIX); also uninstall'
	@echo 'make coverage        lines and branches reached, to build/coverage/index.html; also coverage-cuda'
	@echo 'make lint format dist clean'
	@echo
	@echo 'CONFIG=release|debug|asan|ubsan|tsan|fuzz|faults|coverage  now: $(CONFIG)'
	@echo 'CUDA=auto|0|1|emulated  HDF5=auto|0|1           now: $(CUDA) $(HDF5)'
	@echo 'CJSON_DIR=DIR                                cJSON from there instead of the system'
	@echo 'CUDA_ARCHS="80 90 100 120"                   now: $(CUDA_ARCHS); NVCC=$(NVCC)'
	@echo 'WATCHDOG=1                                   hangs of kernels for Hopper end, and say where'
	@echo 'CC, CXX, CFLAGS, CXXFLAGS, NVCCFLAGS, CPPFLAGS, LDFLAGS, LDLIBS are honoured; V=1 shows commands'
