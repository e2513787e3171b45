# The CUDA backend's part of the build (see the Makefile). Sets HAVE_CUDA, CUDA_NOTE, CUDA_OBJ,
# CUDA_CPPFLAGS and CUDA_LIBS, and LINK when the linking must be a C++ compiler's.
#   CUDA=auto      with nvcc, when there is one and CONFIG is release or debug
#   CUDA=1         with nvcc, or an error
#   CUDA=0         without
#   CUDA=emulated  for tests: the same sources on the CPU, by tests/cuda_on_cpu
# WATCHDOG=1: waits of Hopper's kernels end, and say where (cuda/watchdog.cuh). To find a fault by.

CUDA_HOME ?= /usr/local/cuda
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard $(CUDA_HOME)/bin/nvcc))
CUDA_ARCHS ?= 80 90 100 120
WATCHDOG ?= 0
CUDA_WATCHDOG := $(if $(filter 1,$(WATCHDOG)),-DFKM_WATCHDOG)

CUDA_SRC := $(sort $(wildcard cuda/*.cu cuda/*.cpp))
SM90A_SRC := $(filter %_sm90a.cu,$(CUDA_SRC))
LINK := $(CC)

ifeq ($(CUDA),auto)
  HAVE_CUDA := $(if $(and $(NVCC),$(wildcard cuda/backend_cuda.c*),$(filter release debug,$(CONFIG))),1,0)
  CUDA_NOTE := CPU only$(if $(NVCC),, (no nvcc))
else ifeq ($(CUDA),1)
  HAVE_CUDA := 1
  ifeq ($(NVCC),)
    $(error CUDA=1, but there is no nvcc, neither on PATH nor in CUDA_HOME=$(CUDA_HOME))
  endif
else ifeq ($(CUDA),emulated)
  HAVE_CUDA := 1
  CUDA_NOTE := CUDA=emulated (for tests)
else ifeq ($(CUDA),0)
  HAVE_CUDA := 0
  CUDA_NOTE := CPU only (CUDA=0)
else
  $(error CUDA=$(CUDA): expected auto, 0, 1 or emulated)
endif

ifeq ($(CUDA)$(HAVE_CUDA),emulated1)

include tests/cuda_on_cpu/emulated.mk

else ifeq ($(HAVE_CUDA),1)

# Every architecture's own code, and PTX of the first for those that are not in the list. wgmma and
# TMA exist only for sm_90a: files named so are compiled for that alone.
HAVE_SM90A := $(if $(and $(SM90A_SRC),$(filter 90,$(CUDA_ARCHS))),1,0)
GENCODE := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
	-gencode arch=compute_$(firstword $(CUDA_ARCHS)),code=compute_$(firstword $(CUDA_ARCHS))
GENCODE_90A := -gencode arch=compute_90a,code=sm_90a
ifneq ($(HAVE_SM90A),1)
  CUDA_SRC := $(filter-out $(SM90A_SRC),$(CUDA_SRC))
endif

comma := ,
space := $(subst ,, )
# --fmad=false, as -ffp-contract=off: what is to be fused says so. Temporary files beside the object
# keep random names out of it.
NVCC_HOST := -Wall -Wextra -fPIE -fstack-protector-strong -ffp-contract=off
NVCC_FLAGS := -std=c++17 -O3 --fmad=false --objdir-as-tempdir -ccbin $(CXX) \
	$(if $(filter debug,$(CONFIG)),-g -lineinfo) -Xcompiler=$(subst $(space),$(comma),$(NVCC_HOST))
CUDA_CPPFLAGS := -D_GNU_SOURCE -DFKM_HAVE_SM90A=$(HAVE_SM90A) $(CUDA_WATCHDOG)
CUDA_NOTE = CUDA=1 (sm_$(subst $(space), sm_,$(strip $(CUDA_ARCHS))))
CUDA_OBJ := $(patsubst %,$(B)/%.o,$(CUDA_SRC))
CUDA_LIB_DIR := $(firstword $(wildcard $(dir $(NVCC))../lib64 $(dir $(NVCC))../lib /usr/lib/x86_64-linux-gnu))
CUDA_LIBS := -L$(CUDA_LIB_DIR) -lcudart_static -ldl -lrt -static-libstdc++ -static-libgcc
CUDA_FLAGS := $(NVCC) $(NVCC_FLAGS) $(GENCODE) $(CUDA_CPPFLAGS) $(NVCCFLAGS)
LINK := $(CXX)

$(B)/%_sm90a.cu.o: GENCODE := $(GENCODE_90A)
$(B)/%.cu.o: %.cu $(B)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVCC_FLAGS) $(GENCODE) $(CUDA_CPPFLAGS) $(CPPFLAGS) $(NVCCFLAGS) -MMD -MP -c -o $@ $<
$(B)/%.cpp.o: %.cpp $(B)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVCC_FLAGS) $(GENCODE) $(CUDA_CPPFLAGS) $(CPPFLAGS) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

-include $(CUDA_OBJ:.o=.d)

endif
