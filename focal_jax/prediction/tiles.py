"""Stacks of any size: a network's prediction in overlapping tiles, whose size alone decides on the memory it takes.

The motion is estimated once, from reduced frames; a tile warps the part of the frames that it shows, and its depth is
the whole frame's but for a margin at its inner borders, where the network misses what lies beyond. There its weight is
0; between two tiles' margins depth goes over from one to the other. Tiles begin at multiples of 32 px, as the cells do
on which the network works, and have one size, for which it is compiled once.

A network that starts from the classical estimate (`models.refinement`) sees in it the texture of all of a tile, so that
what is filled in differs from the whole frame's; the transition keeps that from showing as a seam.

How far a border is felt depends on the weights: `python -m benchmarks.tiles` measures it, and the memory. The published
network sees 350 px far in principle.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from focal_jax.align.motion import warp_region, warp_region_sharp
from focal_jax.errors import InputError
from focal_jax.models.depth import MULTIPLE
from focal_jax.models.end_to_end import padded_size
from focal_jax.stack import MAPS, PICTURES, FocalStack, Prediction

# Pixels of all frames of a piece, unless said otherwise; and bytes that each takes. A process takes 0.5 GiB besides.
FRAMES_PX = 22 * 512**2
PIECE_BYTES = 250
# Of many frames tiles would be too small to see enough: up to the first they may take as much as the second in all.
LEAST_PIECE_PX, MOST_FRAMES_PX = 512**2, 40 * 512**2
OVERLAP_PX = 320
LEAST_TILE_PX = 192  # of any number of frames: smaller ones are mostly margin
RAMP = 0.2  # share of the overlap in which depth goes over; the rest is margin
MOTION_SIDE_PX = 640  # what large frames are reduced to before a network finds their motion


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
  """A tile along one axis, px of the frame.

  Attributes:
    start: its first pixel, a multiple of 32.
    stop: the pixel after its last one.
    begin: the first pixel that it has a share in.
    end: the pixel after the last one.
    weights: its share of each of them, 0 .. 1; those of all tiles add up to 1.
  """

  start: int
  stop: int
  begin: int
  end: int
  weights: Float32[np.ndarray, ' L']


def are_needed(stack: FocalStack, tile_px: int | None) -> bool:
  """Whether a stack is predicted in tiles: its frames are too large for one piece, or `tile_px` asks for them."""
  return tile_px is not None or math.prod(stack.images.shape[:3]) > FRAMES_PX


def predict_in_tiles(
  predict: Callable[[FocalStack, None], Prediction],
  stack: FocalStack,
  motion: Float32[np.ndarray, 'N 3'] | None,
  tile_px: int | tuple[int, int],
  overlap_px: int = OVERLAP_PX,
  *,
  sharp: bool,
) -> Prediction:
  """A network's prediction of a stack whose frames are too large for it; shows progress.

  Args:
    predict: of a stack whose frames are aligned, in one piece; its second argument, a motion, is None.
    stack: on the host, as `checked_stack` returns it; uint8 takes the least memory.
    motion: of the frames, in their px; None: they are taken as they are.
    tile_px: largest height and width of a tile; see `tile_sides`.
    overlap_px: of neighbouring tiles, at least; a multiple of 32.
    sharp: whether `predict` is given frames that were resampled by `warp.warp_sharp` rather than linearly. What is
      handed out as aligned is linear in any case.

  Returns:
    As `predict` does, but what there is one a frame of (`weights`, `coverage`, `aligned`, `defocus`) in float16, which
    of ten frames of 12 megapixels saves 1.2 GB, and `pyramid` None.
  """
  frames, *size = stack.images.shape[:3]
  if motion is None:
    stack, motion = stack.replace(fov=np.ones_like(stack.fov)), np.zeros((frames, 3), np.float32)
  sharp = sharp and bool(motion.any() or (stack.fov != 1).any())
  whole = None
  sides = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
  tiles = list(itertools.product(*(spans(length, side, overlap_px) for length, side in zip(size, sides, strict=True))))
  # Without smoothing, or the first tile would go on counting.
  with tqdm(total=len(tiles), desc='depth', unit='tile', smoothing=0) as bar:
    for rows, columns in tiles:
      part = _predict_tile(predict, stack, motion, rows, columns, sharp)
      whole = _empty_like(part, motion, size) if whole is None else whole
      _add_tile(whole, part, rows, columns)
      bar.update()
      if bar.n == 1:  # For the first tile the network was compiled: the rate is that of the others.
        bar.initial, bar.start_t = 1, time.time()
        bar.last_print_t = bar.start_t
  return whole


def _predict_tile(
  predict: Callable[[FocalStack, None], Prediction],
  stack: FocalStack,
  motion: Float32[np.ndarray, 'N 3'],
  rows: Span,
  columns: Span,
  sharp: bool,
) -> Prediction:
  corner, shape = (rows.start, columns.start), (rows.stop - rows.start, columns.stop - columns.start)
  aligned = np.empty((len(stack.fov), *shape, 3), np.float32)
  coverage = np.empty((len(stack.fov), *shape), np.float32)
  moving = list(zip(stack.images, stack.fov.tolist(), motion, strict=True))
  for n, (frame, fov, moved) in enumerate(moving):
    aligned[n], coverage[n] = warp_region(frame, fov, moved, corner, shape)
  white = 255 if stack.images.dtype == np.uint8 else 1
  aligned /= white
  aligned += 0.5 * (1 - coverage[..., None])  # as the network's own warp has it: zero of -1 .. 1
  seen = aligned
  if sharp:
    seen = np.clip(np.stack([warp_region_sharp(*one, corner, shape) for one in moving]) / white, 0, 1)
  part = stack.replace(images=seen, fov=np.ones_like(stack.fov))
  return predict(part, None).replace(aligned=aligned, coverage=coverage)


def _empty_like(part: Prediction, motion: Float32[np.ndarray, 'N 3'], size: list[int]) -> Prediction:
  """Zeros for all that a tile's prediction has, of the whole size."""
  frames, small, large = len(motion), part.depth.shape, tuple(size)

  def zeros(array):
    shape = (frames, *large) if array.shape[0] == frames and array.shape[1:3] == small else large
    return np.zeros((*shape, *array.shape[len(shape) :]), np.float32 if shape == large else np.float16)

  arrays = {name: getattr(part, name) for name in (*MAPS, *PICTURES)}
  return Prediction(**{name: zeros(array) for name, array in arrays.items() if array is not None}, motion=motion)


def _add_tile(whole: Prediction, part: Prediction, rows: Span, columns: Span) -> None:
  """Adds a tile's share to the arrays of `whole`."""
  weight = np.outer(rows.weights, columns.weights)
  to = np.s_[..., rows.begin : rows.end, columns.begin : columns.end]
  of = np.s_[
    ..., rows.begin - rows.start : rows.end - rows.start, columns.begin - columns.start : columns.end - columns.start
  ]
  for name in MAPS:
    if getattr(part, name) is not None:
      getattr(whole, name)[to] += weight * getattr(part, name)[of]
  for name in PICTURES:
    if getattr(part, name) is not None:
      getattr(whole, name)[(*to, slice(None))] += weight[..., None] * getattr(part, name)[(*of, slice(None))]


def spans(length: int, tile_px: int, overlap_px: int) -> list[Span]:
  """As few tiles along an axis as there can be, as small as these can be, evenly spread."""
  tile, overlap, padded = (n // MULTIPLE for n in (tile_px, overlap_px, padded_size(length, length)[0]))
  count = 1 if padded <= tile else math.ceil((padded - overlap) / (tile - overlap))
  tile = math.ceil((padded + (count - 1) * overlap) / count)
  starts = [MULTIPLE * (n * (padded - tile) // max(count - 1, 1)) for n in range(count)]
  tile *= MULTIPLE
  # Half way between the start of a tile and the end of the one before.
  middles = [(before + tile + after) / 2 for before, after in itertools.pairwise(starts)]

  def beyond(middle: float, pixels: np.ndarray) -> np.ndarray:  # share of the tiles after `middle`
    return np.clip((pixels + 0.5 - middle) / (RAMP * overlap_px) + 0.5, 0, 1)

  found = []
  for start, left, right in zip(starts, [-math.inf, *middles], [*middles, math.inf], strict=True):
    stop = min(start + tile, length)
    pixels = np.arange(start, stop)
    weights = beyond(left, pixels) * (1 - beyond(right, pixels))
    shared = np.flatnonzero(weights)
    begin, end = int(pixels[shared[0]]), int(pixels[shared[-1]]) + 1
    found.append(Span(start, stop, begin, end, weights[shared].astype(np.float32)))
  return found


def tile_sides(
  tile_px: int | None, overlap_px: int | None, frames: int, size: tuple[int, int]
) -> tuple[tuple[int, int], int]:
  """Largest height and width of a tile, and how far neighbours overlap, px.

  Args:
    tile_px: what a caller asks for, a multiple of 32, at least twice `overlap_px` and `LEAST_TILE_PX`. None: as few and
      small tiles as there can be without more memory than one piece may take; of many frames, somewhat more.
    overlap_px: of neighbouring tiles. None: `OVERLAP_PX`, or half a tile if that is less.
    frames: how many there are.
    size: height and width of the frames.

  Raises:
    InputError: one of the two is none of these.
  """
  area = max(FRAMES_PX // frames, min(MOST_FRAMES_PX // frames, LEAST_PIECE_PX))
  least = LEAST_TILE_PX if overlap_px is None else 2 * overlap_px
  fitting = max(math.isqrt(area) // MULTIPLE * MULTIPLE, least)
  if overlap_px is None:
    # Of more frames, smaller tiles that share less, rather than more memory.
    overlap_px = max(min(OVERLAP_PX, (tile_px or fitting) // 2 // MULTIPLE * MULTIPLE), MULTIPLE)
  if overlap_px % MULTIPLE or overlap_px < MULTIPLE:
    raise InputError(f'overlap_px is {overlap_px}, expected a multiple of {MULTIPLE}, at least {MULTIPLE}')
  if tile_px is None:
    return _cheapest_sides(size, overlap_px, area, fitting), overlap_px
  if tile_px % MULTIPLE or tile_px < least:
    raise InputError(f'tile_px is {tile_px}, expected a multiple of {MULTIPLE}, at least {least}')
  return (tile_px, tile_px), overlap_px


def _cheapest_sides(size: tuple[int, int], overlap_px: int, area: int, fitting: int) -> tuple[int, int]:
  """Height and width of the tiles of at most this area that have the fewest pixels in all; one that is not square, say
  a half of the frames, may share less with its neighbours. `fitting`: the side of a square one.
  """
  found = [((fitting, fitting), math.inf)]
  padded = padded_size(*size)
  for counts in itertools.product(*(range(1, max(1, -(-length // (fitting - overlap_px))) + 1) for length in padded)):
    sides = tuple(
      MULTIPLE * math.ceil((length + (count - 1) * overlap_px) / count / MULTIPLE)
      for length, count in zip(padded, counts, strict=True)
    )
    alone = all(side > overlap_px or count == 1 for side, count in zip(sides, counts, strict=True))
    if alone and math.prod(sides) <= area:
      found.append((sides, math.prod(sides) * math.prod(counts)))
  return min(found, key=lambda one: one[1])[0]
