#include "cli/describe.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "format/json.h"

static void begin(struct fields *f, const char *name)
{
    if (f->begun)
        strbuf_add_str(f->out, ", ");
    f->begun = true;
    if (!name)
        return;
    if (f->json)
        strbuf_add_json(f->out, name, strlen(name));
    else
        strbuf_add_str(f->out, name);
    strbuf_add_str(f->out, f->json ? ": " : " ");
}

void field_string(struct fields *f, const char *name, const char *value)
{
    begin(f, name);
    if (f->json)
        strbuf_add_json(f->out, value, strlen(value));
    else
        strbuf_add_str(f->out, value);
}

void field_count(struct fields *f, const char *name, double value)
{
    begin(f, name);
    strbuf_addf(f->out, "%.0f", value);
}

void field_real(struct fields *f, const char *name, double value)
{
    const char *word = json_special(value);

    begin(f, name);
    if (word)
        strbuf_add_str(f->out, word);
    else
        strbuf_addf(f->out, "%.6g", value);
}

void field_bool(struct fields *f, const char *name, bool value)
{
    if (f->json) {
        begin(f, name);
        strbuf_add_str(f->out, value ? "true" : "false");
    } else if (value) {
        begin(f, NULL);
        strbuf_add_str(f->out, name);
    }
}

void field_open(struct fields *f, const char *name, char bracket)
{
    begin(f, name);
    strbuf_add_char(f->out, f->json ? bracket : '(');
    f->begun = false;
}

void field_close(struct fields *f, char bracket)
{
    strbuf_add_char(f->out, f->json ? bracket : ')');
    f->begun = true;
}

/* Names of the values of an enum; one that was added since has none here and shows as its number.
 */
static void field_enum(struct fields *f, const char *name, const char *const *names, size_t n,
                       int value)
{
    if (value >= 0 && (size_t)value < n && names[value])
        field_string(f, name, names[value]);
    else
        field_count(f, name, value);
}

static const char *const rope_names[] = {
    [ROPE_NONE] = "none",         [ROPE_DEFAULT] = "default",
    [ROPE_LINEAR] = "linear",     [ROPE_DYNAMIC] = "dynamic",
    [ROPE_LLAMA3] = "llama3",     [ROPE_YARN] = "yarn",
    [ROPE_LONGROPE] = "longrope", [ROPE_PROPORTIONAL] = "proportional",
};

/* Switches, so that a compiler misses the name of what is new. */
static const char *activation_name(enum activation a)
{
    switch (a) {
    case ACT_SILU:
        return "silu";
    case ACT_GELU:
        return "gelu";
    case ACT_GELU_TANH:
        return "gelu_tanh";
    case ACT_RELU:
        return "relu";
    case ACT_RELU2:
        return "relu2";
    case ACT_SIGMOID:
        return "sigmoid";
    case ACT_NONE:
        return "none";
    case ACT_SOFTPLUS:
        return "softplus";
    case ACT_EXP:
        return "exp";
    case ACT_TANH:
        return "tanh";
    case ACT_SWIGLU_CLAMPED:
        return "swiglu_clamped";
    case ACT_COUNT:
        break;
    }
    return "unknown";
}

static const char *op_name(enum op_kind op)
{
    switch (op) {
    case OP_NONE:
        return "identity";
    case OP_ATTENTION:
        return "attention";
    case OP_MLA:
        return "latent attention";
    case OP_POOLED:
        return "pooled attention";
    case OP_SHORT_CONV:
        return "short convolution";
    case OP_CONV_MIXER:
        return "gate of convolutions";
    case OP_MLSTM:
        return "mlstm";
    case OP_MAMBA:
        return "mamba";
    case OP_MAMBA2:
        return "mamba2";
    case OP_DELTA:
        return "delta rule";
    case OP_LIGHTNING:
        return "linear attention";
    case OP_RG_LRU:
        return "rg-lru";
    case OP_RWKV7:
        return "rwkv-7";
    case OP_MLP:
        return "mlp";
    case OP_MOE:
        return "moe";
    case OP_LAYER_INPUT:
        return "layer input";
    case OP_LINEAR:
        return "linear";
    case OP_EMBEDDING:
        return "embedding";
    case OP_LOW_RANK:
        return "low rank";
    case OP_ALTUP_PREDICT:
        return "altup predict";
    case OP_ALTUP_CORRECT:
        return "altup correct";
    case OP_ALTUP_ADD:
        return "altup add";
    case OP_HYPER_READ:
        return "hyper read";
    case OP_HYPER_WRITE:
        return "hyper write";
    }
    return "unknown";
}

static const char *norm_name(enum norm_kind kind)
{
    return kind == NORM_RMS ? "rms" : kind == NORM_LAYER ? "layer" : "none";
}

static void describe_rope(struct fields *f, const struct rope_spec *r)
{
    field_open(f, "rope", '{');
    field_enum(f, "type", rope_names, COUNT(rope_names), (int)r->kind);
    if (r->kind != ROPE_NONE) {
        field_count(f, "dims", r->dims);
        field_real(f, "theta", r->theta);
        if (r->kind != ROPE_DEFAULT)
            field_real(f, "factor", r->factor);
        field_bool(f, "interleaved", r->interleaved);
    }
    field_close(f, '}');
}

static void describe_attention(struct fields *f, const struct attention_spec *a)
{
    field_count(f, "n_heads", a->n_heads);
    field_count(f, "n_kv_heads", a->n_kv_heads);
    field_count(f, "head_dim", a->head_dim);
    field_real(f, "scale", (double)a->scale);
    if (a->window > 0)
        field_count(f, "window", a->window);
    if (a->softcap > 0)
        field_real(f, "softcap", (double)a->softcap);
    field_bool(f, "qkv_bias", a->qkv_bias);
    field_bool(f, "o_bias", a->o_bias);
    field_bool(f, "sinks", a->sinks);
    field_bool(f, "qk_norm", a->q_norm.kind != NORM_NONE);
    describe_rope(f, &a->rope);
}

static void describe_delta(struct fields *f, const struct delta_spec *d)
{
    field_count(f, "n_heads", d->n_heads);
    field_count(f, "n_key_heads", d->n_key_heads);
    field_count(f, "key_dim", d->key_dim);
    field_count(f, "value_dim", d->value_dim);
    field_count(f, "conv_width", d->conv_width);
    field_bool(f, "keywise", d->keywise);
}

static void describe_heads(struct fields *f, int n_heads, int head_dim)
{
    field_count(f, "n_heads", n_heads);
    field_count(f, "head_dim", head_dim);
}

static void describe_rg_lru(struct fields *f, const struct rg_lru_spec *r)
{
    field_count(f, "channels", r->channels);
    field_count(f, "n_heads", r->n_heads);
    field_count(f, "conv_width", r->conv_width);
}

static void describe_mla(struct fields *f, const struct mla_spec *m)
{
    field_count(f, "n_heads", m->n_heads);
    if (m->q_rank)
        field_count(f, "q_rank", m->q_rank);
    field_count(f, "kv_rank", m->kv_rank);
    field_count(f, "nope_dim", m->nope_dim);
    field_count(f, "rope_dim", m->rope_dim);
    field_count(f, "v_dim", m->v_dim);
    field_real(f, "scale", (double)m->scale);
    describe_rope(f, &m->rope);
}

static void describe_mlp(struct fields *f, const struct mlp_spec *m)
{
    field_count(f, "intermediate_size", m->intermediate_size);
    field_string(f, "activation", m->xielu ? "xielu" : activation_name(m->activation));
    field_bool(f, "gated", m->gated);
    field_bool(f, "bias", m->bias);
}

static void describe_moe(struct fields *f, const struct moe_spec *m)
{
    field_count(f, "n_experts", m->router.n_experts);
    field_count(f, "n_experts_per_token", m->router.n_experts_per_token);
    field_bool(f, "normalize", m->router.normalize);
    describe_mlp(f, &m->expert);
}

static void describe_mlstm(struct fields *f, const struct mlstm_spec *m)
{
    field_count(f, "n_heads", m->n_heads);
    field_count(f, "key_dim", m->key_dim);
    field_count(f, "value_dim", m->value_dim);
}

static void describe_mamba(struct fields *f, const struct mamba_spec *m)
{
    field_count(f, "channels", m->channels);
    field_count(f, "state_size", m->state_size);
    field_count(f, "dt_rank", m->dt_rank);
    field_count(f, "conv_width", m->conv_width);
}

static void describe_mamba2(struct fields *f, const struct mamba2_spec *m)
{
    field_count(f, "n_heads", m->n_heads);
    field_count(f, "head_dim", m->head_dim);
    field_count(f, "state_size", m->state_size);
    field_count(f, "n_groups", m->n_groups);
    field_count(f, "conv_width", m->conv_width);
}

static void describe_branch(struct fields *f, const struct branch_spec *b)
{
    const char *op = op_name(b->op);

    field_open(f, f->json ? NULL : op, '{');
    if (f->json)
        field_string(f, "op", op);
    field_string(f, "pre_norm", norm_name(b->pre_norm.kind));
    if (b->post_norm.kind != NORM_NONE)
        field_string(f, "post_norm", norm_name(b->post_norm.kind));
    field_bool(f, "parallel", b->parallel);
    if (b->op == OP_ATTENTION)
        describe_attention(f, &b->attention);
    else if (b->op == OP_SHORT_CONV)
        field_count(f, "width", b->short_conv.width);
    else if (b->op == OP_CONV_MIXER)
        field_count(f, "width", b->conv_mixer.width);
    else if (b->op == OP_MLSTM)
        describe_mlstm(f, &b->mlstm);
    else if (b->op == OP_MAMBA)
        describe_mamba(f, &b->mamba);
    else if (b->op == OP_MAMBA2)
        describe_mamba2(f, &b->mamba2);
    else if (b->op == OP_DELTA)
        describe_delta(f, &b->delta);
    else if (b->op == OP_LIGHTNING)
        describe_heads(f, b->lightning.n_heads, b->lightning.head_dim);
    else if (b->op == OP_RG_LRU)
        describe_rg_lru(f, &b->rg_lru);
    else if (b->op == OP_RWKV7)
        describe_heads(f, b->rwkv7.n_heads, b->rwkv7.head_dim);
    else if (b->op == OP_POOLED)
        describe_heads(f, b->pooled.n_heads, b->pooled.head_dim);
    else if (b->op == OP_MLA)
        describe_mla(f, &b->mla);
    else if (b->op == OP_LOW_RANK)
        field_count(f, "rank", b->rank);
    else if (b->op == OP_MLP)
        describe_mlp(f, &b->mlp);
    else if (b->op == OP_MOE)
        describe_moe(f, &b->moe);
    field_close(f, '}');
}

void describe_layer(struct fields *f, const struct layer_spec *l)
{
    for (int i = 0; i < l->n_branches; i++)
        describe_branch(f, &l->branches[i]);
}

void add_printable(struct strbuf *out, const char *text)
{
    size_t at = out->size;

    strbuf_add_str(out, text);
    if (!out->failed)
        utf8_make_printable(out->data + at);
}
