/* generate/vector.h: functions of plain loops, compiled for AVX2 too and chosen when the program
 * starts. Neither form fuses operations, so both give the same bits. Sanitizers must be set up
 * before anything is chosen, so they do without.
 */
#ifndef GENERATE_VECTOR_H
#define GENERATE_VECTOR_H

#define VECTOR_CLONES

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) &&             \
    !defined(__SANITIZE_THREAD__)
#if !defined(__clang__)
#undef VECTOR_CLONES
#define VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#endif

#endif
