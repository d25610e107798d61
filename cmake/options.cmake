# Warnings, sanitizers, and which instruction sets this processor family can be built for.
include(CheckCSourceCompiles)
add_library(clm_options INTERFACE)
target_compile_options(clm_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wvla -Wundef
  -Wdouble-promotion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wwrite-strings
  -fno-math-errno -fno-trapping-math -ffp-contract=off)
target_compile_definitions(clm_options INTERFACE _GNU_SOURCE)
if(CLM_WERROR)
  target_compile_options(clm_options INTERFACE -Werror)
endif()
if(CLM_SANITIZE)
  add_compile_options(-fsanitize=${CLM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CLM_SANITIZE})
  # Between the calls that tell of accesses gcc loses sight of what loops have set.
  if(CMAKE_C_COMPILER_ID STREQUAL GNU AND CLM_SANITIZE STREQUAL thread)
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
  # gcc's runtimes in the program, where they are installed so: calls into them, of which each
  # function with an array is some, are faster by half.
  if(CMAKE_C_COMPILER_ID STREQUAL GNU AND CLM_SANITIZE STREQUAL "address,undefined")
    set(static_runtimes -static-libasan -static-libubsan)
    set(CMAKE_REQUIRED_LINK_OPTIONS -fsanitize=${CLM_SANITIZE} ${static_runtimes})
    check_c_source_compiles("int main(void) { return 0; }" CLM_HAS_STATIC_SANITIZERS)
    unset(CMAKE_REQUIRED_LINK_OPTIONS)
    if(CLM_HAS_STATIC_SANITIZERS)
      add_link_options(${static_runtimes})
    endif()
  endif()
endif()
if(CLM_FUZZ)
  # What is counted in a loop may keep it from being unrolled: no fault of the source.
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all
    -Wno-pass-failed)
  add_link_options(-fsanitize=address,undefined)
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(CLM_ISA avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(CLM_ISA neon)
endif()
set(CLM_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2 -ffp-contract=fast)
set(CLM_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mavx512vbmi -mgfni
    -mavx2 -mfma -mf16c -mbmi2 -ffp-contract=fast)
set(CLM_ISA_FLAGS_fp16 ${CLM_ISA_FLAGS_avx512} -mavx512fp16)
set(CLM_ISA_FLAGS_amx ${CLM_ISA_FLAGS_avx512} -mamx-tile -mamx-int8 -mamx-bf16)
set(CLM_ISA_FLAGS_neon -march=armv8.2-a+dotprod+fp16 -ffp-contract=fast)

# Compilers, and assemblers, have AVX512-FP16 since 2022.
if("avx512" IN_LIST CLM_ISA)
  set(CMAKE_REQUIRED_FLAGS -mavx512fp16)
  check_c_source_compiles("#include <immintrin.h>
    int main(void) { return _mm512_cmp_ph_mask(_mm512_setzero_ph(), _mm512_setzero_ph(), 1); }" CLM_HAS_FP16)
  unset(CMAKE_REQUIRED_FLAGS)
  if(CLM_HAS_FP16)
    list(APPEND CLM_ISA fp16)
    target_compile_definitions(clm_options INTERFACE CLM_FP16)
  endif()
  set(CMAKE_REQUIRED_FLAGS "-mamx-tile -mamx-bf16")
  check_c_source_compiles("#include <immintrin.h>
    int main(void) { _tile_release(); _tile_dpbf16ps(0, 1, 2); return 0; }" CLM_HAS_AMX)
  unset(CMAKE_REQUIRED_FLAGS)
  # The operating system is asked for the tiles in Linux's way.
  if(CLM_HAS_AMX AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    list(APPEND CLM_ISA amx)
    target_compile_definitions(clm_options INTERFACE CLM_AMX)
  endif()
endif()

# Leaves out files of instruction sets that are not this processor's, and gives the others their
# flags: a file's name ends in the set it is written for (rms_norm_avx2.c).
function(clm_select_isa result)
  set(kept "")
  foreach(source ${ARGN})
    if(source MATCHES "_(avx2|avx512|fp16|amx|neon)\\.c$")
      if(NOT CMAKE_MATCH_1 IN_LIST CLM_ISA)
        continue()
      endif()
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${CLM_ISA_FLAGS_${CMAKE_MATCH_1}}")
    endif()
    list(APPEND kept ${source})
  endforeach()
  set(${result} ${kept} PARENT_SCOPE)
endfunction()
