/* What Python asks before it calls the rest: this file alone may run on any processor. */

#include "kernels.h"

/* Whether this processor has all instructions that the kernels are made of. */
EXPORT int64_t lgbatch_supported(void) {
#ifdef HAS_KERNELS
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* Python builds this as a module of its own, and some linkers look for what such a module begins with. It is not
   imported, but loaded by lgbatch/kernels.py. */
EXPORT void *PyInit__kernels(void);
EXPORT void *PyInit__kernels(void) { return NULL; }
