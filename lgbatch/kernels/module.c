/* Feature detection, called before any other function: only this file may run on any processor. */

#include "kernels.h"

/* Return 1 if the processor has every instruction set that the kernels use. */
EXPORT int64_t lgbatch_supported(void) {
#ifdef HAS_KERNELS
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* setuptools builds an extension module, and some linkers require its entry point. lgbatch/kernels/library.py loads
   the file with ctypes; nothing imports it. */
EXPORT void *PyInit__kernels(void);
EXPORT void *PyInit__kernels(void) { return NULL; }
