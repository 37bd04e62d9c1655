/* AVX-512 with VNNI: Intel Cascade Lake, Ice Lake and Tiger Lake. Products of bfloat16 are products of floats. */

#include "../c/kernels.h"

#ifdef HAS_AVX512_VNNI
#define ISA avx512_vnni
#include <immintrin.h>
BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")
#include "avx512.h"
#include "../c/all.h"
END_TARGET
#endif
