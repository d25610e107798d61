#include "cache/kv_states.h"

#include <string.h>

void kv_states_init(struct kv_states *s)
{
    *s = (struct kv_states){.now = -1, .next = -1};
}

static void give_back(struct block_pool *p, int32_t *block)
{
    if (*block >= 0)
        block_pool_unref(p, *block);
    *block = -1;
}

static void drop_snapshot(struct kv_states *s, struct block_pool *p, int i)
{
    block_pool_unref(p, s->snapshots[i].block);
    s->n_snapshots--;
    memmove(&s->snapshots[i], &s->snapshots[i + 1],
            (size_t)(s->n_snapshots - i) * sizeof s->snapshots[0]);
}

void kv_states_release(struct kv_states *s, struct block_pool *p)
{
    kv_states_cancel(s, p);
    give_back(p, &s->now);
    while (s->n_snapshots > 0)
        drop_snapshot(s, p, s->n_snapshots - 1);
}

void kv_states_share(struct kv_states *to, const struct kv_states *from, struct block_pool *p)
{
    *to = *from;
    to->next = -1;
    if (to->now >= 0)
        block_pool_ref(p, to->now);
    for (int i = 0; i < to->n_snapshots; i++)
        block_pool_ref(p, to->snapshots[i].block);
}

/* Of all but the last, the one whose neighbours are nearest to each other for how far back they
 * lie. */
static int least_needed(const struct kv_states *s, int length)
{
    double least = 0;
    int found = 0;

    for (int i = 0; i < s->n_snapshots - 1; i++) {
        int before = i ? s->snapshots[i - 1].length : 0;
        double gap = (double)(s->snapshots[i + 1].length - before) /
                     (double)(length - s->snapshots[i].length + 1);

        if (i == 0 || gap < least) {
            least = gap;
            found = i;
        }
    }
    return found;
}

bool kv_states_may_stay(const struct kv_states *s, const struct block_pool *p, int begun)
{
    int point = s->n_snapshots > 0 ? s->snapshots[s->n_snapshots - 1].length : 0;

    if (s->now < 0 || block_pool_shared(p, s->now))
        return false;
    return point >= begun && s->length - point < KV_STEPS_IN_PLACE;
}

void kv_states_advance(struct kv_states *s, struct block_pool *p, int n)
{
    if (s->now >= 0 && s->now != s->next) {
        s->snapshots[s->n_snapshots++] = (struct kv_snapshot){s->length, s->now};
        if (s->n_snapshots > KV_SNAPSHOTS)
            drop_snapshot(s, p, least_needed(s, s->length));
    }
    s->now = s->next;
    s->next = -1;
    s->length += n;
}

void kv_states_cancel(struct kv_states *s, struct block_pool *p)
{
    if (s->next == s->now)
        s->next = -1;
    give_back(p, &s->next);
}

/* What the last snapshot has. */
static void go_back(struct kv_states *s, struct block_pool *p)
{
    give_back(p, &s->now);
    s->length = 0;
    if (s->n_snapshots > 0) {
        s->n_snapshots--;
        s->now = s->snapshots[s->n_snapshots].block;
        s->length = s->snapshots[s->n_snapshots].length;
    }
}

void kv_states_fail(struct kv_states *s, struct block_pool *p)
{
    bool lost = s->next >= 0 && s->next == s->now;

    kv_states_cancel(s, p);
    if (lost)
        go_back(s, p);
}

bool kv_states_thin(struct kv_states *s, struct block_pool *p)
{
    int used = block_pool_used(p);

    while (s->n_snapshots > 0)
        drop_snapshot(s, p, s->n_snapshots - 1);
    return block_pool_used(p) < used;
}

int kv_states_point(const struct kv_states *s, int n)
{
    if (n >= s->length)
        return s->length;
    for (int i = s->n_snapshots - 1; i >= 0; i--)
        if (s->snapshots[i].length <= n)
            return s->snapshots[i].length;
    return 0;
}

void kv_states_trim(struct kv_states *s, struct block_pool *p, int n)
{
    kv_states_cancel(s, p);
    while (s->length > n)
        go_back(s, p);
}
