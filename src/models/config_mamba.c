/* models/config_mamba.c: what the families with state spaces read alike. */
#include <math.h>
#include <string.h>

#include "models/family.h"

void config_time_step_limit(config *c, struct mamba2_spec *m, double low, double high)
{
    const double *limits;
    int n = config_floats(c, "time_step_limit", &limits);

    if (n >= 0 && n != 2) {
        config_fail(c, "time_step_limit", "%d numbers; it must be the least and the greatest", n);
        return;
    }
    m->dt_low = (float)(n == 2 ? limits[0] : low);
    m->dt_high = (float)(n == 2 ? limits[1] : high);
}

void config_silu_alone(config *c, const char *key)
{
    if (config_activation(c, key, ACT_SILU) != ACT_SILU)
        config_fail(c, key, "state spaces are computed with \"silu\" alone");
}
