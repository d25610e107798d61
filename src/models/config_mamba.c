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

struct mamba2_spec config_mamba2(config *c, const struct spec *s)
{
    int expand = config_int_or(c, "mamba_expand", 2);
    int n_heads = config_int_in(c, "mamba_n_heads", 1, 4096);
    int groups = config_int_or(c, "mamba_n_groups", 1);
    int64_t inner = (int64_t)expand * s->hidden_size;
    bool bias = config_bool_or(c, "mamba_proj_bias", false);
    struct mamba2_spec m = {
        .n_heads = n_heads,
        .n_groups = groups,
        .state_size = config_int(c, "mamba_d_state"),
        .conv_width = config_int(c, "mamba_d_conv"),
        .conv_activation = config_activation(c, "hidden_act", ACT_SILU),
        .conv_bias = config_bool_or(c, "mamba_conv_bias", true),
        .in_bias = bias,
        .out_bias = bias,
        .norm = config_rms_norm(c),
        .norm_groups = groups,
    };

    if (config_kind(c, "mamba_d_head") == CONFIG_NUMBER)
        m.head_dim = config_int(c, "mamba_d_head");
    else if (strcmp(config_string_or(c, "mamba_d_head", "auto"), "auto") == 0)
        m.head_dim = inner / n_heads < INT32_MAX ? (int)(inner / n_heads) : 0;
    else
        config_fail(c, "mamba_d_head", "it must be a number or \"auto\"");
    config_time_step_limit(c, &m, 0, HUGE_VAL);
    return m;
}

int config_dt_rank(config *c, const char *key, int hidden_size)
{
    if (config_kind(c, key) == CONFIG_NUMBER)
        return config_int(c, key);
    if (strcmp(config_string_or(c, key, "auto"), "auto") != 0)
        config_fail(c, key, "it must be a number or \"auto\"");
    return (hidden_size + 15) / 16;
}
