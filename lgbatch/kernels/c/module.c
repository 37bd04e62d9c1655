/* The instruction sets that this file was built for. Only this file may run before lgbatch_isa_runs was asked. */

#include "kernels.h"

#if defined(__x86_64__) || (defined(_M_X64) && defined(__clang__))
#include <cpuid.h>

/* Whether the operating system saves the registers of `mask` (XCR0): 0x6 for 256 bits, 0xe6 for 512 bits. */
static int saves(uint32_t mask) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return 0; /* OSXSAVE */
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & mask) == mask;
}

typedef struct {
    uint32_t c1, b7, c7, a7_1; /* ecx of leaf 1; ebx and ecx of leaf 7; eax of leaf 7, subleaf 1 */
} Features;

/* Whether the processor has all of these features. */
static int64_t has(Features wanted) {
    uint32_t a, b, c, d, c1;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || (c1 & wanted.c1) != wanted.c1) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((b & wanted.b7) != wanted.b7 || (c & wanted.c7) != wanted.c7) return 0;
    if (!wanted.a7_1) return 1;
    return a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & wanted.a7_1) == wanted.a7_1;
}

enum {
    FMA = 1 << 12 | 1 << 29,                                   /* c1: FMA, F16C */
    AVX2 = 1 << 5,                                             /* b7 */
    AVX512F = 1 << 16,                                         /* b7 */
    AVX512 = 1 << 16 | 1 << 17 | 1 << 30 | (int)(1u << 31),    /* b7: F, DQ, BW, VL */
    AVX512_VNNI = 1 << 11,                                     /* c7 */
    AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5,                   /* a7_1 */
};

static int64_t runs_avx512_vnni(void) { return saves(0xe6) && has((Features){FMA, AVX2 | AVX512, AVX512_VNNI, 0}); }
static int64_t runs_avx512_bf16(void) { return runs_avx512_vnni() && has((Features){0, 0, 0, AVX512_BF16}); }
static int64_t runs_avx2(void) { return saves(0x6) && has((Features){FMA, AVX2, 0, 0}); }
static int64_t lacks_avx512(void) { return !saves(0xe6) || !has((Features){0, AVX512F, 0, 0}); }
static int64_t runs_avx_vnni(void) { return runs_avx2() && has((Features){0, 0, 0, AVX_VNNI}); }
#endif

#if defined(HAS_NEON_DOTPROD) || defined(HAS_NEON_BF16) || defined(HAS_NEON_I8MM)
#if defined(__linux__)
#include <sys/auxv.h>

/* The bits of the kernel's asm/hwcap.h. */
static int64_t runs_neon_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
static int64_t runs_neon_bf16(void) { return runs_neon_dotprod() && getauxval(AT_HWCAP2) >> 14 & 1; }
static int64_t runs_neon_i8mm(void) { return runs_neon_bf16() && getauxval(AT_HWCAP2) >> 13 & 1; }
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int64_t has(const char *feature) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(feature, &value, &size, NULL, 0) && value;
}

static int64_t runs_neon_dotprod(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int64_t runs_neon_bf16(void) { return runs_neon_dotprod() && has("hw.optional.arm.FEAT_BF16"); }
static int64_t runs_neon_i8mm(void) { return runs_neon_bf16() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(_WIN32)
#include <windows.h>

/* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE. Windows does not tell whether there are BF16 and I8MM. */
static int64_t runs_neon_dotprod(void) { return IsProcessorFeaturePresent(43); }
static int64_t runs_neon_bf16(void) { return 0; }
static int64_t runs_neon_i8mm(void) { return 0; }
#else
static int64_t runs_neon_dotprod(void) { return 0; }
static int64_t runs_neon_bf16(void) { return 0; }
static int64_t runs_neon_i8mm(void) { return 0; }
#endif
#endif

static int64_t always(void) { return 1; }
static int64_t never(void) { return 0; }

static const struct {
    const char *name;
    int64_t (*runs)(void);
    int64_t (*beats_fp32)(void); /* ONNX Runtime's fp32 on the same processor: AVX2 loses to AVX-512 (measured) */
} ISAS[] = {
    /* the fastest first */
#ifdef HAS_AVX512_BF16
    {"avx512-bf16", runs_avx512_bf16, always},
#endif
#ifdef HAS_AVX512_VNNI
    {"avx512-vnni", runs_avx512_vnni, always},
#endif
#ifdef HAS_AVX_VNNI
    {"avx-vnni", runs_avx_vnni, always},
#endif
#ifdef HAS_AVX2
    {"avx2", runs_avx2, lacks_avx512},
#endif
#ifdef HAS_NEON_I8MM
    {"neon-i8mm", runs_neon_i8mm, always},
#endif
#ifdef HAS_NEON_BF16
    {"neon-bf16", runs_neon_bf16, always},
#endif
#ifdef HAS_NEON_DOTPROD
    {"neon-dotprod", runs_neon_dotprod, always},
#endif
    {"portable", always, never},
};

/* The name of an instruction set, the fastest first; NULL after the last. In the names of functions, _ replaces -. */
EXPORT const char *lgbatch_isa_name(int64_t index) {
    return index < (int64_t)(sizeof ISAS / sizeof *ISAS) ? ISAS[index].name : NULL;
}

/* Whether the processor and the operating system can run it. */
EXPORT int64_t lgbatch_isa_runs(int64_t index) { return ISAS[index].runs(); }

/* Whether it is faster than fp32 there. */
EXPORT int64_t lgbatch_isa_beats_fp32(int64_t index) { return ISAS[index].beats_fp32(); }

/* setuptools builds an extension module, and some linkers require its entry point. lgbatch/kernels/library.py loads
   the file with ctypes; nothing imports it. */
EXPORT void *PyInit__kernels(void);
EXPORT void *PyInit__kernels(void) { return NULL; }
