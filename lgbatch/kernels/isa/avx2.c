/* AVX2: Intel since Haswell, AMD since Zen. */

#include "../c/kernels.h"

#ifdef HAS_AVX2
#define ISA avx2
#include <immintrin.h>
BEGIN_TARGET("avx2,fma,f16c")
#include "avx.h"
#include "../c/all.h"
END_TARGET
#endif
