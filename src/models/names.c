/* models/names.c: matching tensor names with patterns. */
#include "models/names.h"

#include <string.h>

#define MAX_TENSOR_NAME 512

/* A number of at most 9 digits at *s; -1 when there is none. */
static int read_number(const char **s)
{
    int n = 0, digits = 0;

    for (; **s >= '0' && **s <= '9'; (*s)++, digits++) {
        if (digits == 9)
            return -1;
        n = n * 10 + (**s - '0');
    }
    return digits ? n : -1;
}

/* The alternative of "{a,b,c}" that s begins with; *s and *pattern move behind it. -1: none. A
 * longer alternative wins over one that it begins with. */
static int read_alternative(const char **s, const char **pattern)
{
    const char *p = *pattern + 1;
    int found = -1;
    size_t longest = 0;

    for (int i = 0;; i++) {
        size_t n = strcspn(p, ",}");

        if (strncmp(*s, p, n) == 0 && (found < 0 || n > longest)) {
            found = i;
            longest = n;
        }
        p += n;
        if (*p++ != ',')
            break;
    }
    *s += longest;
    *pattern = p;
    return found;
}

static bool match(const char *pattern, const char *s, struct tensor_place *place)
{
    place->layer = place->expert = -1;
    place->alternative = 0;
    while (*pattern) {
        if (strcmp(pattern, "**") == 0)
            return true;
        if (*pattern == '*' || *pattern == '#') {
            int n = read_number(&s);

            if (n < 0)
                return false;
            *(*pattern++ == '*' ? &place->layer : &place->expert) = n;
        } else if (*pattern == '{') {
            place->alternative = read_alternative(&s, &pattern);
            if (place->alternative < 0)
                return false;
        } else if (*pattern++ != *s++) {
            return false;
        }
    }
    return *s == '\0';
}

static enum tensor_part part_of(const char *suffix)
{
    static const struct {
        const char *suffix;
        enum tensor_part part;
    } names[] = {
        {"weight", PART_WEIGHT},
        {"bias", PART_BIAS},
        {"scales", PART_SCALES},
        {"biases", PART_BIASES},
        {"signs", PART_SIGNS},
        {"qweight", PART_WEIGHT},
        {"weight_packed", PART_WEIGHT},
        {"weight_scale", PART_SCALES},
        {"weight_scale_inv", PART_SCALES},
        {"qzeros", PART_ZEROS},
        {"weight_zero_point", PART_ZEROS},
        {"g_idx", PART_ORDER},
        {"weight_g_idx", PART_ORDER},
        {"weight_scale_2", PART_FACTOR},
        {"weight_global_scale", PART_DIVISOR},
        {"weight_shape", PART_UNUSED},
        {"activation_scale", PART_UNUSED},
        {"input_scale", PART_UNUSED},
        {"input_scale_ub", PART_UNUSED},
        {"input_global_scale", PART_UNUSED},
        {"q_scale", PART_UNUSED},
        {"k_scale", PART_UNUSED},
        {"v_scale", PART_UNUSED},
        {"prob_output_scale", PART_UNUSED},
        {"input_zero_point", PART_UNUSED},
        {"output_scale", PART_UNUSED},
    };

    for (size_t i = 0; i < COUNT(names); i++)
        if (strcmp(suffix, names[i].suffix) == 0)
            return names[i].part;
    return PART_OTHER;
}

/* The name with its prefix replaced; false when it is too long to be any model's. */
static bool without_prefix(const struct weight_prefix *prefixes, const char *name, char *out)
{
    const char *to = "";

    for (const struct weight_prefix *p = prefixes; p && p->from; p++) {
        if (strncmp(name, p->from, strlen(p->from)) == 0) {
            name += strlen(p->from);
            to = p->to;
            break;
        }
    }
    if (strlen(to) + strlen(name) >= MAX_TENSOR_NAME)
        return false;
    strcpy(out, to);
    strcat(out, name);
    return true;
}

/* Models that also see or hear hold their language model under one of these names, and beside it
 * what makes embeddings of pictures and sounds. */
static const struct weight_prefix text_prefixes[] = {
    {"language_model.model.blocks.", "model.layers."}, /* Kimi K2.5 as transformers writes it */
    {"language_model.model.encoder.layers.", "model.layers."}, /* Qianfan OCR */
    {"language_model.model.", "model."},
    {"model.language_model.", "model."},
    {"language_model.", ""},
    {"model.text_model.", "model."},
    {"thinker.", ""}, /* what of Qwen's omni models makes text */
    {NULL, NULL},
};

static const struct weight_rule towers[] = {
    {"{vision,image,video}_tower.**", IGNORE},
    {"vision_model.**", IGNORE},
    {"visual.**", IGNORE},
    {"multi_modal_projector.**", IGNORE},
    {"{image_newline,model.image_newline}", IGNORE},
    {"{mm_projector,projector,encoder}.**", IGNORE},
    {"{mlp1,mlp_AR,vit,vit_large_projector}.**", IGNORE},
    {"{talker,token2wav,code2wav}.**", IGNORE},
    {"audio_tower.**", IGNORE},
    {"embed_vision.**", IGNORE},
    {"embed_audio.**", IGNORE},
    {"model.vision_tower.**", IGNORE},
    {"model.vision_model.**", IGNORE},
    {"model.visual.**", IGNORE},
    {"model.multi_modal_projector.**", IGNORE},
    {"model.audio_tower.**", IGNORE},
    {"model.connector.**", IGNORE},
    {"model.{aligner,merger,mm_projector,projector,vqmodel}.**", IGNORE},
    {"model.generation_**", IGNORE},
    {"model.high_res_vision_**", IGNORE},
    {"{qformer,language_projection}.**", IGNORE},
    {"query_tokens", IGNORE},
    {"model.vision_{encoder,projection}.**", IGNORE},
    {"model.visual_embeddings_table.**", IGNORE},
    {"model.embed_vision.**", IGNORE},
    {"model.embed_audio.**", IGNORE},
    {NULL, IGNORE},
};

/* Whether a rule is for the layer that its pattern has found. */
static bool is_of_layer(const struct weight_rule *r, const struct spec *s, int layer)
{
    return r->to.only == OP_NONE || !s || layer < 0 || layer >= s->n_layers ||
           s->layers[layer].branches[0].op == r->to.only;
}

/* Whether a pattern is of whole names, whose last part is not taken off. */
static bool is_whole(const char *pattern)
{
    static const char end[] = ".bias";
    size_t n = strlen(pattern), m = sizeof end - 1;

    return strstr(pattern, "**") || (n > m && strcmp(pattern + n - m, end) == 0);
}

static struct tensor_place place_by(const struct weight_rule *rules,
                                    const struct weight_prefix *prefixes, const struct spec *s,
                                    const char *name)
{
    char whole[MAX_TENSOR_NAME], module[MAX_TENSOR_NAME];
    struct tensor_place place = {.part = PART_OTHER};
    char *dot;

    if (!without_prefix(prefixes, name, whole))
        return place;
    strcpy(module, whole);
    dot = strrchr(module, '.');
    if (dot)
        place.part = part_of(dot + 1);
    if (dot && place.part != PART_OTHER)
        *dot = '\0';
    for (const struct weight_rule *r = rules; r->pattern; r++) {
        bool by_whole = is_whole(r->pattern);

        if ((!r->to.bare || place.part == PART_OTHER) &&
            match(r->pattern, by_whole ? whole : module, &place) &&
            is_of_layer(r, s, place.layer)) {
            place.to = r->to;
            if (by_whole)
                place.part = PART_OTHER;
            return place;
        }
    }
    place.to = (struct weight_target){.kind = TARGET_NONE};
    return place;
}

/* The tensor of a name with another end, if it is the given part. */
static struct tensor_place place_beside(const struct family *f, const struct spec *s,
                                        const char *name, const char *end, const char *other,
                                        enum tensor_part part)
{
    size_t n = strlen(name), m = strlen(end);
    char beside[MAX_TENSOR_NAME + 16];
    struct tensor_place place = {.part = PART_OTHER};

    if (n <= m || n >= MAX_TENSOR_NAME || strcmp(name + n - m, end) != 0)
        return place;
    memcpy(beside, name, n - m);
    strcpy(beside + n - m, other);
    place = tensor_place(f, s, beside);
    if (place.part == part)
        place.part = PART_SCALES;
    else
        place.to.kind = TARGET_NONE;
    return place;
}

/* Scales whose names are not of the usual form: of stacked experts, whose names have no last part,
 * experts.down_proj_scale_inv; DeepSeek's w1.scale beside w1.weight. */
static struct tensor_place place_scales(const struct family *f, const struct spec *s,
                                        const char *name)
{
    struct tensor_place place = place_beside(f, s, name, "_scale_inv", "", PART_OTHER);

    if (place.to.kind == TARGET_NONE)
        place = place_beside(f, s, name, ".scale", ".weight", PART_WEIGHT);
    return place;
}

struct tensor_place tensor_place(const struct family *f, const struct spec *s, const char *name)
{
    struct tensor_place place = place_by(f->weights, f->prefixes, s, name);

    if (place.to.kind == TARGET_NONE)
        place = place_by(f->weights, text_prefixes, s, name);
    if (place.to.kind == TARGET_NONE)
        place = place_by(towers, NULL, NULL, name);
    if (place.to.kind == TARGET_NONE && place.part != PART_UNUSED)
        place = place_scales(f, s, name);
    if (s && place.layer >= 0 && place.layer < s->n_layers && s->layers[place.layer].left_out &&
        place.to.kind != TARGET_NONE)
        place.to.kind = TARGET_IGNORE;
    return place;
}

const char *pattern_of(const struct family *f, int branch, enum weight_role role)
{
    for (const struct weight_rule *r = f->weights; r->pattern; r++) {
        int n = r->to.kind == TARGET_SLOTS ? 1 : r->to.n;

        if (r->to.kind == TARGET_NONE || r->to.kind == TARGET_IGNORE)
            continue;
        if (r->to.kind == TARGET_SLOTS && strchr(r->pattern, '{'))
            for (const char *p = strchr(r->pattern, '{'); *p != '}'; p++)
                n += *p == ',';
        if (r->to.branch == branch && role >= r->to.first && (int)role < (int)r->to.first + n)
            return r->pattern;
    }
    return NULL;
}

bool checkpoint_is_published(const checkpoint *c, const char *own, const char *converted)
{
    bool told = false;

    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const char *name = checkpoint_at(c, i)->name;

        if (strstr(name, own))
            return true;
        told = told || strstr(name, converted);
    }
    return !told && checkpoint_by_torch(c);
}

bool checkpoint_by_torch(const checkpoint *c)
{
    const char *format = checkpoint_metadata(c, "format");

    return format && strcmp(format, "pt") == 0;
}
