/* NEON with dot products of int8: Apple M1, Graviton 2, Raspberry Pi 5. Products of bfloat16 are products of
   floats. */

#include "../c/kernels.h"

#ifdef HAS_NEON_DOTPROD
#define ISA neon_dotprod
#include <arm_neon.h>
#include <string.h>
#ifdef __clang__
BEGIN_TARGET("dotprod")
#else
BEGIN_TARGET("arch=armv8.2-a+dotprod")
#endif
#include "neon.h"
#include "../c/all.h"
END_TARGET
#endif
