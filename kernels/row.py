"""Rows that one program keeps on chip: read once, as a tuple of tiles of power-of-two widths."""

import triton
import triton.language as tl


@triton.jit
def load_row(pointer, rows, inside, stride, n_columns, other, PIECES: tl.constexpr):
    """The rows as a tuple of (BLOCK_M, piece) tiles, in their storage dtype; `other` beyond them.

    `stride` is the distance between rows, which themselves are contiguous; `inside` says which rows
    exist.
    """
    tiles = ()
    start = 0
    for i in tl.static_range(len(PIECES)):
        columns = start + tl.arange(0, PIECES[i])
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * stride + columns[None, :]
        tile = tl.load(pointer + offsets, mask=mask, other=other)
        tiles = tiles + (tile,)  # type: ignore[assignment]
        start += PIECES[i]
    return tiles


@triton.jit
def load_shared(pointer, n_columns, other, PIECES: tl.constexpr):
    """A vector that all rows share, such as a norm's weight, as a tuple of (piece,) tiles."""
    tiles = ()
    start = 0
    for i in tl.static_range(len(PIECES)):
        columns = start + tl.arange(0, PIECES[i])
        tile = tl.load(pointer + columns, mask=columns < n_columns, other=other)
        tiles = tiles + (tile,)  # type: ignore[assignment]
        start += PIECES[i]
    return tiles


@triton.jit
def store_piece(pointer, rows, inside, stride, n_columns, value, start):
    """Store one (BLOCK_M, piece) tile that begins at column `start`."""
    columns = start + tl.arange(0, value.shape[1])
    mask = inside[:, None] & (columns < n_columns)[None, :]
    tl.store(pointer + rows[:, None] * stride + columns[None, :], value, mask=mask)
