/* NEON with dot products of int8 and bfloat16: Apple since M2, Graviton since 3. */

#include "../c/kernels.h"

#ifdef HAS_NEON_BF16
#define ISA neon_bf16
#define NATIVE_BF16
#include <arm_neon.h>
#include <string.h>
#ifdef __clang__
BEGIN_TARGET("dotprod,bf16")
#else
BEGIN_TARGET("arch=armv8.2-a+dotprod+bf16")
#endif
#include "neon.h"
#include "../c/all.h"
END_TARGET
#endif
