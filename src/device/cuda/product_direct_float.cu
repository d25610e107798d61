/* device/cuda/product_direct_float.cu: the kernels of product_direct.cuh for floats of 16, 8 and 4
 * bits. */
#include "device/cuda/product_direct.cuh"

struct variant direct_variant_float(int codes, const struct stream &s)
{
    switch (codes) {
    case BF16:
        return direct_variant_of<BF16, 6>(s);
    case F16:
        return direct_variant_of<F16, 6>(s);
    case E2M1:
        return direct_variant_of<E2M1, 5>(s);
    default: /* E4M3 */
        return s.kind == SCALE_E8M0 ? direct_variant_of<E4M3, 5>(s) : direct_variant_of<E4M3, 7>(s);
    }
}
