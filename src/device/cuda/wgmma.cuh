/* device/cuda/wgmma.cuh: Hopper's products of warpgroups, m64nNk16 with f32 sums, and the barriers
 * with which shared memory is handed to them and back. For code of sm_90a alone.
 *
 * Matrices in shared memory lie in parts of 64 numbers, 128 bytes, a row: piece c of 16 bytes of
 * row r lies at c ^ r % 8, and parts begin at multiples of 1024 bytes. */
#ifndef DEVICE_CUDA_WGMMA_CUH
#define DEVICE_CUDA_WGMMA_CUH

#include "device/cuda/mma.cuh"

/* Whether this build has such code for a GPU of the architecture. */
static inline bool wgmma_built_for(int arch)
{
#ifdef CLM_CUDA_SM90A
    return arch == 90;
#else
    (void)arch;
    return false;
#endif
}

/* A matrix from an address on. Where rows are what is summed over: part_bytes from part to part. */
static __device__ __forceinline__ uint64_t wgmma_matrix(uint32_t address, uint32_t part_bytes)
{
    const uint64_t of_eight_rows = 1024 >> 4, swizzled = (uint64_t)1 << 62;

    return (address & 0x3ffff) >> 4 | (uint64_t)(part_bytes >> 4) << 16 | of_eight_rows << 32 |
           swizzled;
}

/* Registers that products change are as the program has them. */
static __device__ __forceinline__ void wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* What was asked for since is a group. */
static __device__ __forceinline__ void wgmma_close(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the last N groups have ended. */
template <int N> static __device__ __forceinline__ void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Sums that products are at work on, or were: what reads or writes them stays on its side. */
template <int N> static __device__ __forceinline__ void wgmma_hold(float (&d)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

#define WGMMA_4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_16(d, i) WGMMA_4(d, i), WGMMA_4(d, (i) + 1), WGMMA_4(d, (i) + 2), WGMMA_4(d, (i) + 3)
#define WGMMA_32(d) WGMMA_16(d, 0), WGMMA_16(d, 4)
#define WGMMA_64(d) WGMMA_32(d), WGMMA_16(d, 8), WGMMA_16(d, 12)
#define WGMMA_NAMES_32                                                                             \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"       \
    "%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_64                                                                             \
    WGMMA_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,"     \
                   "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* Both sides from shared memory, numbers that are summed over along rows; on: d += a b^T, else d =
 * a b^T. */
#define WGMMA_SHARED(size, type, names, places, a_name, b_name, on_name)                           \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" on_name ", 0;\n"                               \
                 "wgmma.mma_async.sync.aligned.m64n" size "k16.f32." type "." type " {" names      \
                 "}, %" a_name ", %" b_name ", p, 1, 1, 0, 0; }"                                   \
                 : places                                                                          \
                 : "l"(a), "l"(b), "r"((int)on)                                                    \
                 : "memory")

/* The left side from registers, as mma_16816 has it, the right with what is summed over down the
 * rows: d += a b. */
#define WGMMA_MIXED(size, type, names, places, a0, a1, a2, a3, b_name)                             \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" size "k16.f32." type "." type " {" names      \
                 "}, {%" a0 ",%" a1 ",%" a2 ",%" a3 "}, %" b_name ", 1, 1, 1, 1;"                  \
                 : places                                                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                              \
                 : "memory")

/* d [64, 8 N], N 8 or 16; a row's numbers as mma_16816 gives them, 16 rows to a warp. */
template <typename T, int N>
static __device__ __forceinline__ void wgmma_rows(float (*d)[4], uint64_t a, uint64_t b, bool on)
{
    static_assert(N == 8 || N == 16, "sizes that there are");
    if constexpr (N == 8 && std::is_same<T, __half>::value)
        WGMMA_SHARED("64", "f16", WGMMA_NAMES_32, WGMMA_32(d), "32", "33", "34");
    else if constexpr (N == 8)
        WGMMA_SHARED("64", "bf16", WGMMA_NAMES_32, WGMMA_32(d), "32", "33", "34");
    else if constexpr (std::is_same<T, __half>::value)
        WGMMA_SHARED("128", "f16", WGMMA_NAMES_64, WGMMA_64(d), "64", "65", "66");
    else
        WGMMA_SHARED("128", "bf16", WGMMA_NAMES_64, WGMMA_64(d), "64", "65", "66");
}

template <typename T, int N>
static __device__ __forceinline__ void wgmma_columns(float (*d)[4], const uint32_t (&a)[4],
                                                     uint64_t b)
{
    static_assert(N == 8 || N == 16, "sizes that there are");
    if constexpr (N == 8 && std::is_same<T, __half>::value)
        WGMMA_MIXED("64", "f16", WGMMA_NAMES_32, WGMMA_32(d), "32", "33", "34", "35", "36");
    else if constexpr (N == 8)
        WGMMA_MIXED("64", "bf16", WGMMA_NAMES_32, WGMMA_32(d), "32", "33", "34", "35", "36");
    else if constexpr (std::is_same<T, __half>::value)
        WGMMA_MIXED("128", "f16", WGMMA_NAMES_64, WGMMA_64(d), "64", "65", "66", "67", "68");
    else
        WGMMA_MIXED("128", "bf16", WGMMA_NAMES_64, WGMMA_64(d), "64", "65", "66", "67", "68");
}

/* What this thread wrote to shared memory, or saw there, is seen by products to come. */
static __device__ __forceinline__ void wgmma_see(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A warpgroup's threads have so many registers from here on, fewer or more than before. */
template <int N> static __device__ __forceinline__ void wgmma_give_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void wgmma_take_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* --- Barriers in shared memory --- */

static __device__ __forceinline__ void barrier_open(uint32_t barrier, int n_arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(n_arrivals)
                 : "memory");
}

/* What was opened is seen by copies to come. */
static __device__ __forceinline__ void barrier_show(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Arrives, and so many bytes of copies of tensors are to come. */
static __device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* A box of a tensor from its number x of row y on, laid out as the map says; to a barrier that
 * expects it. */
static __device__ __forceinline__ void barrier_copy(uint32_t barrier, uint32_t to, const void *map,
                                                    int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}

/* n bytes as they lie, all multiples of 16. */
static __device__ __forceinline__ void copy_bulk(uint32_t to, const void *from, int n,
                                                 uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];" ::"r"(to),
                 "l"(from), "r"(n), "r"(barrier)
                 : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives when this thread's copies have. */
static __device__ __forceinline__ void barrier_arrive_with_copies(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* Until the phase with this number, counted modulo 2, has ended. */
static __device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t phase)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again; }" ::"r"(barrier),
                 "r"(phase & 1)
                 : "memory");
}

/* The threads of a block that name it, n of them, wait for one another. */
static __device__ __forceinline__ void barrier_among(int name, int n)
{
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(n) : "memory");
}

#endif
