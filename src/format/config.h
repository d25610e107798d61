/* format/config.h: reading a config.json, key by key, with one check at the end.
 *
 * A config carries the error: after the first one every reader returns its harmless value (1 for a
 * required number, the default for others) and config_done reports it. A key that is null counts as
 * absent. Keys that were never asked for and are not known to be harmless are listed in one
 * warning.
 */
#ifndef FORMAT_CONFIG_H
#define FORMAT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"

typedef struct config config;

/* path names the file in messages. Strings and arrays that are handed out live as long as the
 * config. */
config *config_open(const char *path, const struct log *log, clm_error *err);
config *config_parse(const char *text, size_t size, const char *path, const struct log *log,
                     clm_error *err);
void config_close(config *c); /* the root; NULL is fine */

bool config_has(const config *c, const char *key); /* there, and not null; does not count as read */

/* The same of the whole file's object, whichever c is of it. */
bool config_root_has(const config *c, const char *key);

/* Keys of an object in JSON count where c does not have them, as if they were read, objects also
 * where c has null. Twice at most for a file, the first counts before the second. A failure is that
 * of c. */
void config_defaults(config *c, const char *text);

/* Where c has alias, and not null, that is the value of key, which stays valid as long as c. */
void config_alias(config *c, const char *alias, const char *key);

/* There, and null: for the few keys where that means "none" rather than "the default". Counts as
 * read. */
bool config_is_null(config *c, const char *key);

/* Integers must fit an int and be >= 0; a float that is a whole number counts as one. */
int config_int(config *c, const char *key);
int config_int_or(config *c, const char *key, int value);
/* A number in the range [low, high]; anything else is an error that says so. */
int config_int_in(config *c, const char *key, int low, int high);
/* Finite: Infinity, also as transformers writes it, {"__float__": "Infinity"}, is an error. */
double config_float(config *c, const char *key);
double config_float_or(config *c, const char *key, double value);
bool config_bool(config *c, const char *key);
/* null is false, as it is in Python. */
bool config_bool_or(config *c, const char *key, bool value);
const char *config_string(config *c, const char *key);
const char *config_string_or(config *c, const char *key, const char *value);

/* Arrays: the number of items, with *items set (NULL when 0); an absent key gives -1. Items are as
 * above, but floats may be infinite, as in a time_step_limit of [0.0, Infinity]. */
int config_ints(config *c, const char *key, const int **items);
int config_floats(config *c, const char *key, const double **items);
int config_floats_or_nulls(config *c, const char *key, const double **items); /* null is 0 */
int config_strings(config *c, const char *key, const char *const **items);
int config_bools(config *c, const char *key, const bool **items);

/* Number or array of numbers: the eos_token_id form. The same results as config_ints. */
int config_int_or_ints(config *c, const char *key, const int **items);

/* An object inside: shares error and warnings of c; NULL when absent, or when something has failed.
 * Readers take NULL for an empty object. A wrong type is an error. */
config *config_object(config *c, const char *key);

/* Item i of an array of objects, anew with each call; NULL past the end, or when key is absent. */
config *config_item(config *c, const char *key, int i);

/* The keys of this object in file order, for objects used as maps; i-th key or NULL past the end.
 */
const char *config_key(config *c, int i);

/* Is this key's value an object, a string, ...? CONFIG_ABSENT for null too. */
enum config_kind {
    CONFIG_ABSENT,
    CONFIG_NUMBER,
    CONFIG_BOOL,
    CONFIG_STRING,
    CONFIG_ARRAY,
    CONFIG_OBJECT
};
enum config_kind config_kind(const config *c, const char *key);

/* Count these keys (NULL-terminated list) as read: they do not matter for inference. */
void config_ignore(config *c, const char *key, ...) __attribute__((sentinel));

/* Where a reader of meaning (an unknown rope type, say) puts its own finding: CLM_ERR_UNSUPPORTED.
 * Returns -1. */
int config_fail(config *c, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

clm_error *config_error(config *c); /* for fail(); never NULL */
const char *config_path(const config *c);

/* 0, or -1 with *err when any reader failed. Warns, once, of the keys that nothing read. */
int config_done(config *c, clm_error *err);

#endif
