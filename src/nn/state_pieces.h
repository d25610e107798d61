/* nn/state_pieces.h: what the state of a recurrent mixer is made of, and the arrays that mlx-lm
 * keeps it in.
 *
 * An array of mlx-lm has a first dimension of 1, for the batch. Where clm has a matrix [key,
 * value], it may have [value, key]; where clm has several convolutions, the columns of one array.
 */
#ifndef NN_STATE_PIECES_H
#define NN_STATE_PIECES_H

#include "nn/spec.h"

#define NN_STATE_PIECES 4 /* of a branch, at most */

struct nn_state_piece {
    int array;   /* of the branch's, from 0 */
    int dims[3]; /* of the array, after the batch's; the last n_dims of them count */
    int n_dims;
    int first, n;  /* its columns among the array's last dimension */
    bool turned;   /* clm has the last two dimensions the other way round; all columns are its */
    size_t offset; /* bytes from where the branch's part of the state begins: f32 [rows, n] */
};

/* The number of pieces; 0 for a branch without a state, -1 for one that files cannot hold. */
int nn_state_pieces(const struct branch_spec *b, struct nn_state_piece pieces[NN_STATE_PIECES]);

/* Numbers of a piece, and of the whole array. */
size_t nn_state_piece_count(const struct nn_state_piece *p);
size_t nn_state_array_count(const struct nn_state_piece *p);

/* A piece from its state into an array, and back. state: where the branch's part begins. */
void nn_state_piece_to_array(const struct nn_state_piece *p, float *array, const void *state);
void nn_state_piece_from_array(const struct nn_state_piece *p, void *state, const float *array);

#endif
