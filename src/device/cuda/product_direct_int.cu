/* device/cuda/product_direct_int.cu: the kernels of product_direct.cuh for 4 and 8 bits. */
#include "device/cuda/product_direct.cuh"

template <int C> static struct variant of_groups(const struct stream &s)
{
    return s.group_shift == 5   ? direct_variant_of<C, 5>(s)
           : s.group_shift == 6 ? direct_variant_of<C, 6>(s)
                                : direct_variant_of<C, 7>(s);
}

struct variant direct_variant_int(int codes, const struct stream &s)
{
    return codes == INT4 ? of_groups<INT4>(s) : of_groups<INT8>(s);
}
