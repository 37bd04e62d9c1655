/* AVX-512 with VNNI and BF16: AMD since Zen 4, Intel Xeon since Sapphire Rapids. */

#include "../c/kernels.h"

#ifdef HAS_AVX512_BF16
#define ISA avx512_bf16
#define NATIVE_BF16
#include <immintrin.h>
BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma")
#include "avx512.h"
#include "../c/all.h"
END_TARGET
#endif
