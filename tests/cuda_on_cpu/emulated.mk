# CUDA=emulated (see cuda/cuda.mk): the backend's sources by the C++ compiler, and the layer.
# The layer is the hardware. It has no sanitizer but AddressSanitizer, which must know its fibers.

# Hopper's own kernels are executed by tests/cuda/test_cuda_hopper; the table leaves them out.
HAVE_SM90A := 0
CUO_SRC := $(addprefix tests/cuda_on_cpu/,fibers.cpp hopper.cpp runtime.cpp streams.cpp warp.cpp)
CUO_OBJ := $(patsubst %,$(B)/%.o,$(CUO_SRC))
CUDA_OBJ := $(patsubst %,$(B)/%.o,$(CUDA_SRC)) $(CUO_OBJ)
CUDA_CPPFLAGS := -D_GNU_SOURCE -DFKM_CUDA_ON_CPU=1 -DFKM_HAVE_SM90A=0 $(CUDA_WATCHDOG) -Itests/cuda_on_cpu/include
CUDA_LIBS :=
LINK := $(CXX)

CXX_WARN := -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function
CXX_BASE := -std=c++17 $(CXX_WARN) -fPIE -ffp-contract=off -pthread
CXX_KERNEL := $(CXX_BASE) $(OPT)
CXX_LAYER := $(CXX_BASE) -O2 -g $(if $(filter asan,$(CONFIG)),-fsanitize=address -fno-omit-frame-pointer) \
	$(if $(filter tsan,$(CONFIG)),-DCUO_TSAN)
CUDA_FLAGS := $(CXX) $(CXX_KERNEL) $(CXX_LAYER) $(CUDA_CPPFLAGS) $(CXXFLAGS)

$(CUO_OBJ): CXX_KERNEL := $(CXX_LAYER)
$(B)/%.cu.o: %.cu $(B)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CUDA_CPPFLAGS) $(CPPFLAGS) $(CXX_KERNEL) $(CXXFLAGS) -MMD -MP -c -o $@ -x c++ $<
$(B)/%.cpp.o: %.cpp $(B)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CUDA_CPPFLAGS) $(CPPFLAGS) $(CXX_KERNEL) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(CUDA_OBJ:.o=.d)
