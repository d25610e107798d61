/* generate/vector.h: functions of plain loops, compiled for AVX2 and AVX-512 too and chosen when
 * the program starts. No form fuses operations, so all give the same bits. Sanitizers must be set
 * up before anything is chosen, so they do without. Static functions alone: gcc shows the names of
 * others to whoever loads the library, whatever the visibility.
 */
#ifndef GENERATE_VECTOR_H
#define GENERATE_VECTOR_H

#define VECTOR_CLONES

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) &&             \
    !defined(__SANITIZE_THREAD__)
#if !defined(__clang__)
#undef VECTOR_CLONES
#if __GNUC__ >= 12
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#endif
#endif

#endif
