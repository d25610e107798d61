/* device/cuda/stream.cuh: what products of few rows are made of: copies that run ahead, codes that
 * become halves, matrix instructions. */
#ifndef DEVICE_CUDA_STREAM_CUH
#define DEVICE_CUDA_STREAM_CUH

#include <cuda_fp8.h>
#include <string.h>

#include "device/cuda/weights.cuh"

/* NVFP4 are E2M1 with a scale for 16. */
enum stream_codes { BF16, F16, INT2, INT3, INT4, INT5, INT6, INT8, E2M1, NVFP4, E4M3 };

enum scale_kind {
    NO_SCALE,
    AFFINE_F32,
    AFFINE_F16,
    AFFINE_BF16,
    SCALE_E8M0,
    SCALE_E4M3,
    SCALE_F32
};

static __host__ __device__ constexpr int bits_of(int codes)
{
    constexpr int bits[] = {16, 16, 2, 3, 4, 5, 6, 8, 4, 4, 8};

    return bits[codes];
}

enum { RING_CHUNK = 256 /* numbers of a chunk of a ring */ };

static __host__ __device__ constexpr int chunk_bytes(int codes)
{
    return RING_CHUNK * bits_of(codes) / 8;
}

/* Bytes from row to row of a chunk in shared memory: the lanes of eight rows read other banks. */
static __host__ __device__ constexpr int pitch_of(int codes)
{
    return chunk_bytes(codes) + (bits_of(codes) == 8 ? 32 : 16);
}

static __host__ __device__ constexpr bool is_int(int codes)
{
    return codes >= INT2 && codes <= INT8;
}

/* Those that are multiplied by more rows, too: each takes half a minute to compile. */
static __host__ __device__ constexpr bool is_common(int codes)
{
    return codes == INT4 || codes == INT8;
}

/* Which of eight codes share a register: i and i + 4, else i and i + 1. */
static __host__ __device__ constexpr bool is_spread(int codes)
{
    return codes == INT4 || codes == INT2 || codes == E2M1 || codes == NVFP4;
}

static __host__ __device__ constexpr int scale_size(int kind)
{
    return kind == AFFINE_F32 || kind == SCALE_F32    ? 4
           : kind == SCALE_E8M0 || kind == SCALE_E4M3 ? 1
                                                      : 2;
}

/* --- Asynchronous copies --- */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0));
}

/* 4 bytes, of which n are there. */
static __device__ __forceinline__ void copy4(uint32_t to, const void *from, int n)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(n));
}

static __device__ __forceinline__ void copies_end(void)
{
    asm volatile("cp.async.commit_group;");
}

/* Until no more than n <= 3 are on their way. */
static __device__ __forceinline__ void copies_wait(int n)
{
    if (n == 3)
        asm volatile("cp.async.wait_group 3;" ::: "memory");
    else if (n == 2)
        asm volatile("cp.async.wait_group 2;" ::: "memory");
    else if (n == 1)
        asm volatile("cp.async.wait_group 1;" ::: "memory");
    else
        asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* --- Codes to halves --- */

/* What comes with code i of eight where they lie behind the bits of another number: 2^10 where the
 * lowest bit of the code is that of the half, 2^8 where it is the third, and so on. */
static __host__ __device__ constexpr int offset_of(int codes, int i)
{
    return codes == INT4   ? (i % 2 ? 64 : 1024)
           : codes == INT2 ? 1024 >> 2 * (i % 4)
           : is_int(codes) ? 1024
                           : 0;
}

/* The bits of the mask in both halves, behind those of the offset. */
static __device__ __forceinline__ uint32_t masked(uint32_t v, uint32_t mask, int offset)
{
    uint32_t r, behind = offset == 1024  ? 0x6400
                         : offset == 256 ? 0x5C00
                         : offset == 64  ? 0x5400
                                         : 0x4C00;

    asm("lop3.b32 %0, %1, %2, %3, 0xEA;"
        : "=r"(r)
        : "r"(v), "r"(mask | mask << 16), "r"(behind | behind << 16));
    return r;
}

static __device__ __forceinline__ uint32_t times(uint32_t a, __half2 b)
{
    __half2 h;

    memcpy(&h, &a, 4);
    h = __hmul2(h, b);
    memcpy(&a, &h, 4);
    return a;
}

/* Eight values of 3, 5 or 6 bits from any byte on. */
template <int BITS>
static __device__ __forceinline__ void unpack_odd(uint32_t r[4], const uint8_t *p)
{
    const uint32_t mask = (1u << BITS) - 1;
    uintptr_t at = (uintptr_t)p;
    const uint32_t *words = (const uint32_t *)(at & ~(uintptr_t)3);
    uint32_t shift = at % 4 * 8, w2 = BITS > 4 ? words[2] : 0;
    uint32_t low = __funnelshift_r(words[0], words[1], shift);
    uint32_t high = __funnelshift_r(words[1], w2, shift);

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int a = 2 * i * BITS, b = a + BITS;
        uint32_t first = a >= 32 ? high >> (a - 32) : __funnelshift_r(low, high, a);
        uint32_t second = b >= 32 ? high >> (b - 32) : __funnelshift_r(low, high, b);

        r[i] = (first & mask) | (second & mask) << 16 | 0x64006400;
    }
}

/* Eight codes: of integers with their offsets, of E2M1 and NVFP4 2^-14 of the value, else the
 * value.
 */
template <int C> static __device__ __forceinline__ void unpack(uint32_t r[4], const uint8_t *p)
{
    if (C == INT4) {
        uint32_t v = *(const uint32_t *)p;

#pragma unroll
        for (int i = 0; i < 4; i++)
            r[i] = masked(v >> 8 * (i / 2), i % 2 ? 0xF0 : 0xF, offset_of(C, i));
    } else if (C == INT2) {
        uint32_t v = *(const uint16_t *)p;

        v = (v & 0xFF) | (v & 0xFF00) << 8;
#pragma unroll
        for (int i = 0; i < 4; i++)
            r[i] = masked(v, 3u << 2 * i, offset_of(C, i));
    } else if (C == INT8) {
        uint2 v = *(const uint2 *)p;

        r[0] = __byte_perm(v.x, 0x64646464, 0x4140);
        r[1] = __byte_perm(v.x, 0x64646464, 0x4342);
        r[2] = __byte_perm(v.y, 0x64646464, 0x4140);
        r[3] = __byte_perm(v.y, 0x64646464, 0x4342);
    } else if (C == E2M1 || C == NVFP4) {
        uint32_t v = *(const uint32_t *)p;

        r[0] = (v << 12 & 0x80008000) | (v << 9 & 0x0E000E00);
        r[1] = (v << 8 & 0x80008000) | (v << 5 & 0x0E000E00);
        r[2] = (v << 4 & 0x80008000) | (v << 1 & 0x0E000E00);
        r[3] = (v & 0x80008000) | (v >> 3 & 0x0E000E00);
    } else if (C == E4M3) {
        uint2 v = *(const uint2 *)p;

#pragma unroll
        for (int i = 0; i < 4; i++) {
            __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(
                (__nv_fp8x2_storage_t)((i < 2 ? v.x : v.y) >> 16 * (i % 2)), __NV_E4M3);

            r[i] = h.x | (uint32_t)h.y << 16;
        }
    } else {
        unpack_odd<C == INT3 ? 3 : C == INT5 ? 5 : 6>(r, p);
    }
}

/* d += a b, a 16 x 16, b 16 x 8 */
template <bool BF>
static __device__ __forceinline__ void multiply(float d[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                uint32_t a3, uint32_t b0, uint32_t b1)
{
    if (BF)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Scale or bias i of some that lie in shared memory. */
static __device__ __forceinline__ float scale_value(const uint8_t *p, int i, int kind)
{
    if (kind == AFFINE_BF16)
        return bf16_number(((const uint16_t *)p)[i]);
    if (kind == AFFINE_F16)
        return f16_number(((const uint16_t *)p)[i]);
    return ((const float *)p)[i];
}

/* --- Numbers to halves --- */

static __device__ __forceinline__ uint16_t half_bits(float v, float *rest)
{
    __half h = __float2half_rn(v);

    *rest = v - __half2float(h);
    return __half_as_ushort(h);
}

/* The power of two that takes the greatest magnitude to some 2^14. */
static __device__ __forceinline__ float scale_for(float most)
{
    int e = (int)(__float_as_uint(most) >> 23) - 127;

    if (most == 0 || e == 128)
        return 1;
    e = min(14 - e, 120);
    return __uint_as_float((uint32_t)(e + 127) << 23);
}

static __device__ __forceinline__ float inverse_of_power(float x)
{
    return __uint_as_float((254u << 23) - __float_as_uint(x));
}

/* Eight numbers as halves in the order of the codes, and their sum, and what the offsets of codes
 * make of them, taken back. v becomes what the halves lack. */
template <int C> static __device__ __forceinline__ float2 put_halves(uint8_t *to, float v[8])
{
    uint16_t h[8];
    float2 sums = make_float2(0, 0);

#pragma unroll
    for (int i = 0; i < 8; i++) {
        float rest;

        h[i] = half_bits(v[i], &rest);
        sums.x += v[i] - rest;
        sums.y -= (float)offset_of(C, i) * (v[i] - rest);
        v[i] = rest;
    }
    if (is_spread(C))
        *(uint4 *)to =
            make_uint4(h[0] | h[4] << 16, h[1] | h[5] << 16, h[2] | h[6] << 16, h[3] | h[7] << 16);
    else
        *(uint4 *)to =
            make_uint4(h[0] | h[1] << 16, h[2] | h[3] << 16, h[4] | h[5] << 16, h[6] | h[7] << 16);
    return sums;
}

#endif
