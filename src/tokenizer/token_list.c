/* tokenizer/token_list.c: ids that grow. */
#include "base/memory.h"
#include "tokenizer/tokenizer.h"

bool token_list_grow(struct token_list *list)
{
    size_t capacity = list->capacity ? list->capacity : 32, bytes;
    int32_t *ids = NULL;

    if (list->failed)
        return false;
    if (size_mul(capacity, 2, &capacity) && size_mul(capacity, sizeof *ids, &bytes))
        ids = mem_resize(list->ids, bytes);
    if (!ids) {
        list->failed = true;
        return false;
    }
    list->ids = ids;
    list->capacity = capacity;
    return true;
}

void token_list_clear(struct token_list *list)
{
    list->count = 0;
    list->failed = false;
}

void token_list_release(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}
