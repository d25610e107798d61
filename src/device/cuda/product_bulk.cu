/* device/cuda/product_bulk.cu: the kernels of product_bulk.cuh, for 4 and 8 bits. */
#include "device/cuda/product_bulk.cuh"

template <int C> static struct variant of_groups(const struct stream &s)
{
    return s.group_shift == 5   ? bulk_variant_of<C, 5>(s)
           : s.group_shift == 6 ? bulk_variant_of<C, 6>(s)
                                : bulk_variant_of<C, 7>(s);
}

struct variant bulk_variant(int codes, const struct stream &s)
{
    return codes == INT4 ? of_groups<INT4>(s) : of_groups<INT8>(s);
}
