/* models/foreign.h: weights as tools other than MLX quantise them, by what the tensors and
 * quantization_config say. */
#ifndef MODELS_FOREIGN_H
#define MODELS_FOREIGN_H

#include "models/packed.h"
#include "models/pieces.h"

/* Reads quantization_config into b->foreign; a method that clm does not know is an error. */
int foreign_read(struct binder *b);

/* Has another tool than MLX packed the whole numbers of this matrix? */
bool is_packed(const struct piece *p);

/* models/levels.c: does it hold numbers that stand for three levels? What they are multiplied by to
 * find these. */
bool has_levels(const struct binder *b, const struct piece *p, const struct nn_slot *s);
int levels_read(const struct binder *b, struct packed *m, const struct piece *p);

/* The matrix that a piece is a part of, checked against the shapes of its tensors, in the mapped
 * file. */
int packed_open(const struct binder *b, struct packed *m, const struct piece *p,
                const struct nn_slot *s, int expert);

/* One matrix of a slot from such tensors, and the order of its inputs. */
int set_packed(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
               int expert);

/* Bytes of e4m3 with scales for blocks, rows or all. */
bool is_fp8(const struct piece *p);

/* The whole matrix that a piece is a part of as a weight in host memory, of the file and of b. */
int fp8_open(const struct binder *b, struct weight *w, const struct piece *p,
             const struct nn_slot *s, int expert);
int set_fp8(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert);

/* models/fp4.c: bytes of two e2m1 each, with scales of a byte for groups of 32 or 16. */
bool is_fp4(const struct piece *p);
int fp4_open(const struct binder *b, struct weight *w, float *factor, const struct piece *p,
             const struct nn_slot *s); /* as fp8_open, all in the file */
int set_fp4(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert);

#endif
