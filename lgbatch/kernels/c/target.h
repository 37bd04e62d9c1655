/* What compilers and processors differ in: which instruction sets the compiler knows, and how a file uses one without
   compiler flags, so that one build holds all of them. */

#ifndef LGBATCH_TARGET_H
#define LGBATCH_TARGET_H

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define INLINE static __forceinline
#define NOT_INLINE static __declspec(noinline)
#else
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define NOT_INLINE static __attribute__((noinline))
#else
#define NOT_INLINE static __attribute__((noinline, noclone)) /* a clone for known sizes spills its accumulators */
#endif
#endif

/* Ask for the cache line of an address that is needed soon. */
#if defined(_MSC_VER) && !defined(__clang__)
#define PREFETCH(address) ((void)(address))
#else
#define PREFETCH(address) __builtin_prefetch(address)
#endif

/* Other files are compiled for any processor of the architecture; only code between BEGIN_TARGET and END_TARGET may use
   the named features. */
#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET _Pragma("clang attribute pop")
#else
#define BEGIN_TARGET(features) PRAGMA(GCC target(features))
#define END_TARGET
#endif

/* The versions of the compilers that know a feature: Clang's, Apple Clang's (numbered differently) and GCC's. Until Clang
   19, immintrin.h had vectors on Windows only where a compiler flag asked for them. */
#if defined(__apple_build_version__)
#define KNOWN_SINCE(clang, apple_clang, gcc) (__clang_major__ >= apple_clang)
#elif defined(__clang__) && defined(_MSC_VER)
#define KNOWN_SINCE(clang, apple_clang, gcc) (__clang_major__ >= 19 && __clang_major__ >= clang)
#elif defined(__clang__)
#define KNOWN_SINCE(clang, apple_clang, gcc) (__clang_major__ >= clang)
#elif defined(__GNUC__)
#define KNOWN_SINCE(clang, apple_clang, gcc) (__GNUC__ >= gcc)
#else
#define KNOWN_SINCE(clang, apple_clang, gcc) 0
#endif

#if defined(__x86_64__) || (defined(_M_X64) && defined(__clang__))
#if KNOWN_SINCE(9, 12, 10)
#define HAS_AVX512_BF16
#endif
#if KNOWN_SINCE(8, 11, 8)
#define HAS_AVX512_VNNI
#endif
#if KNOWN_SINCE(12, 13, 11)
#define HAS_AVX_VNNI
#endif
#if KNOWN_SINCE(6, 9, 5)
#define HAS_AVX2
#endif
#endif

#if (defined(__aarch64__) && !defined(__AARCH64EB__)) || (defined(_M_ARM64) && defined(__clang__))
#if KNOWN_SINCE(16, 15, 8) || defined(__ARM_FEATURE_DOTPROD)
#define HAS_NEON_DOTPROD
#endif
#if KNOWN_SINCE(16, 15, 10) || defined(__ARM_FEATURE_BF16)
#define HAS_NEON_BF16
#endif
#endif

#endif
