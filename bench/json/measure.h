/* bench/json/measure.h: what measure.c asks of a JSON library; one file implements it for each. */
#ifndef BENCH_JSON_MEASURE_H
#define BENCH_JSON_MEASURE_H

#include <stddef.h>

/* The text is followed by a NUL that size does not count. NULL when the library refuses it. */
void *library_parse(const char *text, size_t size);
void library_release(void *root);

/* The keys of model.vocab, each from malloc, in the order of the file; their number. */
size_t library_vocab(void *root, char **keys, size_t max);

/* Looks up n of them by name and adds up their ids. */
long long library_lookup(void *root, char **keys, size_t n);

size_t library_walk(void *root); /* the number of values in the document */
const char *library_print(void *root);

#endif
