/* AVX2 with VNNI in 256 bits: Intel laptops since Alder Lake, AMD since Zen 5. */

#include "../c/kernels.h"

#ifdef HAS_AVX_VNNI
#define ISA avx_vnni
#define NATIVE_INT8
#include <immintrin.h>
BEGIN_TARGET("avx2,fma,f16c,avxvnni")
#include "avx.h"
#include "../c/all.h"
END_TARGET
#endif
