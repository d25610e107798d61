#include "models/read_ahead.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/available.h"
#include "base/memory.h"
#include "base/read_ahead.h"
#include "models/names.h"

enum { GAP = 65536 }; /* between tensors that are read together */

static bool is_looked_up(const struct spec *s, const struct tensor_place *place)
{
    if (place->to.kind != TARGET_SLOTS)
        return false;
    return place->to.first == ROLE_NGRAM_TABLES ||
           (place->to.first == ROLE_EMBED_TOKENS && !s->tie_word_embeddings);
}

static bool is_used(const struct model *m, const struct checkpoint_tensor *t)
{
    struct tensor_place place = tensor_place(m->family, m->spec, t->name);

    if (place.to.kind == TARGET_NONE || place.to.kind == TARGET_IGNORE || place.part == PART_UNUSED)
        return false;
    if (place.layer >= 0 && !place.to.second && place.layer >= m->spec->n_layers)
        return false;
    if (place.to.first == ROLE_LM_HEAD && m->spec->tie_word_embeddings)
        return false;
    return t->size > 0 && !is_looked_up(m->spec, &place);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct file_part *)a)->data;
    uintptr_t y = (uintptr_t)((const struct file_part *)b)->data;

    return (x > y) - (x < y);
}

/* What is used, in order of address, neighbours as one; *parts for mem_free. */
static size_t collect(struct file_part **parts, const struct model *m)
{
    size_t n = 0, kept = 0;
    struct file_part *list = mem_zeroed(checkpoint_count(m->weights), sizeof *list);

    *parts = list;
    for (size_t i = 0; list && i < checkpoint_count(m->weights); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(m->weights, i);

        if (is_used(m, t))
            list[n++] = (struct file_part){t->data, t->size};
    }
    if (n)
        qsort(list, n, sizeof *list, by_address);
    for (size_t i = 0; i < n; i++) {
        struct file_part *last = kept ? &list[kept - 1] : NULL;
        uintptr_t begin = (uintptr_t)list[i].data;
        uintptr_t end = last ? (uintptr_t)last->data + last->size : 0;

        if (last && begin >= end && begin - end < GAP)
            last->size += begin - end + list[i].size;
        else
            list[kept++] = list[i];
    }
    return kept;
}

struct told {
    bool (*go_on)(void *ctx);
    void *ctx;
    const struct log *log;
    int percent; /* what was said last */
};

static bool tell(void *ctx, size_t done, size_t total)
{
    struct told *t = ctx;
    int now = (int)(100.0 * (double)done / (double)total);

    if (now > t->percent)
        log_say(t->log, LOG_PROGRESS, "Reading weights: %d%%", now);
    t->percent = now;
    return t->go_on(t->ctx);
}

/* A tenth more, so that what is read first is not let go of for what comes last. */
static bool have_room(const struct file_part *parts, size_t n)
{
    double bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += (double)parts[i].size;
    return 1.1 * bytes < (double)memory_available();
}

int model_read_ahead(const struct model *m, bool (*go_on)(void *ctx), void *ctx,
                     const struct log *log, clm_error *err)
{
    struct told told = {go_on, ctx, log, -1};
    struct file_part *parts;
    size_t n;
    bool done = true;

    if (!checkpoint_on_disk(m->weights))
        return 0;
    n = collect(&parts, m);
    if (read_ahead_wanted(parts, n) && have_room(parts, n)) {
        done = read_ahead(parts, n, tell, &told);
        log_say(log, LOG_PROGRESS, "%s", "");
    }
    mem_free(parts);
    return done ? 0 : fail(err, CLM_ERR_CANCELLED, "%s: stopped", config_path(m->config));
}

void model_map_ahead(const struct model *m, bool (*go_on)(void *ctx), void *ctx)
{
    struct file_part *parts;
    size_t n;

    if (!m->weights)
        return;
    n = collect(&parts, m);
    map_ahead(parts, n, go_on, ctx);
    mem_free(parts);
}
