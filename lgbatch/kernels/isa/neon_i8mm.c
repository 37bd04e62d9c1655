/* NEON with products of matrices of int8 and bfloat16: Apple since M2, Graviton since 3. */

#include "../c/kernels.h"

#ifdef HAS_NEON_I8MM
#define ISA neon_i8mm
#define NATIVE_BF16
#define NATIVE_MATRIX
#include <arm_neon.h>
#include <string.h>
#ifdef __clang__
BEGIN_TARGET("dotprod,bf16,i8mm")
#else
BEGIN_TARGET("arch=armv8.2-a+dotprod+bf16+i8mm")
#endif
#include "neon.h"
#include "../c/all.h"
END_TARGET
#endif
