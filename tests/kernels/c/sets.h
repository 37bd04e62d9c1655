/* EACH_SET(DO): DO(isa, name) for each instruction set that this build has kernels for. */

#include "../../../lgbatch/kernels/c/kernels.h"

#ifdef HAS_AVX512_BF16
#define IF_AVX512_BF16(DO) DO(avx512_bf16, "avx512-bf16")
#else
#define IF_AVX512_BF16(DO)
#endif
#ifdef HAS_AVX512_VNNI
#define IF_AVX512_VNNI(DO) DO(avx512_vnni, "avx512-vnni")
#else
#define IF_AVX512_VNNI(DO)
#endif
#ifdef HAS_AVX_VNNI
#define IF_AVX_VNNI(DO) DO(avx_vnni, "avx-vnni")
#else
#define IF_AVX_VNNI(DO)
#endif
#ifdef HAS_AVX2
#define IF_AVX2(DO) DO(avx2, "avx2")
#else
#define IF_AVX2(DO)
#endif
#ifdef HAS_NEON_I8MM
#define IF_NEON_I8MM(DO) DO(neon_i8mm, "neon-i8mm")
#else
#define IF_NEON_I8MM(DO)
#endif
#ifdef HAS_NEON_BF16
#define IF_NEON_BF16(DO) DO(neon_bf16, "neon-bf16")
#else
#define IF_NEON_BF16(DO)
#endif
#ifdef HAS_NEON_DOTPROD
#define IF_NEON_DOTPROD(DO) DO(neon_dotprod, "neon-dotprod")
#else
#define IF_NEON_DOTPROD(DO)
#endif
#define EACH_SET(DO) \
    IF_AVX512_BF16(DO) IF_AVX512_VNNI(DO) IF_AVX_VNNI(DO) IF_AVX2(DO) \
    IF_NEON_I8MM(DO) IF_NEON_BF16(DO) IF_NEON_DOTPROD(DO) DO(portable, "portable")

const char *lgbatch_isa_name(int64_t);
int64_t lgbatch_isa_runs(int64_t);
