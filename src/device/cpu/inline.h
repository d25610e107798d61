/* device/cpu/inline.h: how a kernel that is written once becomes one for each of its constants. */
#ifndef CLM_DEVICE_CPU_INLINE_H
#define CLM_DEVICE_CPU_INLINE_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CLM_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CLM_SANITIZED
#endif

/* Each access of a sanitized kernel is a branch: with all copies of it gemv_avx512.c alone takes 90
 * seconds and 600 MB to compile. There the constants are read as it runs. */
#ifdef CLM_SANITIZED
#define INLINE static inline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#endif
