"""Prediction of large stacks by a network in overlapping tiles, whose size alone determines the memory it takes.

The motion is estimated once, from reduced frames. Each tile warps its part of the frames. Its depth equals that of the
whole frames, except for a margin at inner borders, where the network lacks the context beyond. The margin has weight 0,
and between the margins of two tiles depth blends from one to the other. Tiles start at multiples of 32 px, like the
cells of the network, and have one size, for which the network is compiled once.

A network that starts from the classical estimate (`models.refinement`) sees the texture of a whole tile in it, so that
filled-in depth differs from that of the whole frames; blending hides the seam.

How far the effect of a border extends depends on the weights: `python -m benchmarks.tiles` measures it, and the memory.
In principle the published network sees 350 px far.
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

# Default number of pixels in all frames of a piece, and bytes that each takes, in addition to 0.5 GiB for the process.
FRAMES_PX = 22 * 512**2
PIECE_BYTES = 250
# With many frames tiles would have too little context: up to the first size, they may take the second number of pixels.
MIN_PIECE_PX, MAX_FRAMES_PX = 512**2, 40 * 512**2
OVERLAP_PX = 320
MIN_TILE_PX = 192  # minimum for any number of frames: smaller tiles are mostly margin
RAMP = 0.2  # share of the overlap in which tiles are blended; the rest is margin
MOTION_SIDE_PX = 640  # longer side to which large frames are reduced for motion estimation by a network


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
  """A tile along one axis, px of the frame.

  Attributes:
    start: its first pixel, a multiple of 32.
    stop: the pixel after its last one.
    begin: the first pixel with a nonzero weight.
    end: the pixel after the last one with a nonzero weight.
    weights: its weight for each of these pixels, 0 .. 1; the weights of all tiles sum to 1.
  """

  start: int
  stop: int
  begin: int
  end: int
  weights: Float32[np.ndarray, ' L']


def are_needed(stack: FocalStack, tile_px: int | None) -> bool:
  """Whether a stack is predicted in tiles: its frames are too large for one piece, or `tile_px` is given."""
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
  """A network's prediction for a stack whose frames are too large for one piece; shows progress.

  Args:
    predict: predicts a stack of aligned frames in one piece; its second argument, a motion, is None.
    stack: on the host, as returned by `checked_stack`; uint8 takes the least memory.
    motion: of the frames, in their px; None: frames stay as they are.
    tile_px: maximum height and width of a tile; see `tile_sides`.
    overlap_px: minimum overlap of neighbouring tiles; a multiple of 32.
    sharp: whether frames for `predict` are resampled by `warp.warp_sharp` instead of linearly. The returned aligned
      frames are resampled linearly in any case.

  Returns:
    Same as `predict`, but per-frame results (`weights`, `coverage`, `aligned`, `defocus`) are float16, which saves 1.2
      GB for ten frames of 12 megapixels, and `pyramid` is None.
  """
  frames, *size = stack.images.shape[:3]
  if motion is None:
    stack, motion = stack.replace(fov=np.ones_like(stack.fov)), np.zeros((frames, 3), np.float32)
  sharp = sharp and bool(motion.any() or (stack.fov != 1).any())
  whole = None
  sides = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
  tiles = list(itertools.product(*(spans(length, side, overlap_px) for length, side in zip(size, sides, strict=True))))
  # Without smoothing; otherwise the first tile would continue to count.
  with tqdm(total=len(tiles), desc='depth', unit='tile', smoothing=0) as bar:
    for rows, columns in tiles:
      part = _predict_tile(predict, stack, motion, rows, columns, sharp)
      whole = _empty_like(part, motion, size) if whole is None else whole
      _add_tile(whole, part, rows, columns)
      bar.update()
      if bar.n == 1:  # the first tile includes compilation: exclude it from the rate
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
  aligned += 0.5 * (1 - coverage[..., None])  # outside, the network's own warp gives 0 of -1 .. 1, hence 0.5
  seen = aligned
  if sharp:
    seen = np.clip(np.stack([warp_region_sharp(*one, corner, shape) for one in moving]) / white, 0, 1)
  part = stack.replace(images=seen, fov=np.ones_like(stack.fov))
  return predict(part, None).replace(aligned=aligned, coverage=coverage)


def _empty_like(part: Prediction, motion: Float32[np.ndarray, 'N 3'], size: list[int]) -> Prediction:
  """Zeros for all fields of a tile's prediction, at the full size."""
  frames, small, large = len(motion), part.depth.shape, tuple(size)

  def zeros(array):
    shape = (frames, *large) if array.shape[0] == frames and array.shape[1:3] == small else large
    return np.zeros((*shape, *array.shape[len(shape) :]), np.float32 if shape == large else np.float16)

  arrays = {name: getattr(part, name) for name in (*MAPS, *PICTURES)}
  return Prediction(**{name: zeros(array) for name, array in arrays.items() if array is not None}, motion=motion)


def _add_tile(whole: Prediction, part: Prediction, rows: Span, columns: Span) -> None:
  """Adds a tile's contribution to the arrays of `whole`."""
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
  """The fewest tiles that cover an axis, as small as possible, evenly spread."""
  tile, overlap, padded = (n // MULTIPLE for n in (tile_px, overlap_px, padded_size(length, length)[0]))
  count = 1 if padded <= tile else math.ceil((padded - overlap) / (tile - overlap))
  tile = math.ceil((padded + (count - 1) * overlap) / count)
  starts = [MULTIPLE * (n * (padded - tile) // max(count - 1, 1)) for n in range(count)]
  tile *= MULTIPLE
  # Half-way between the start of a tile and the end of the previous one.
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
  """Maximum height and width of a tile, and the overlap of neighbours, px.

  Args:
    tile_px: requested size, a multiple of 32, at least twice `overlap_px` and `MIN_TILE_PX`. None: the fewest and
      smallest tiles that take no more memory than one piece may; for many frames, somewhat more.
    overlap_px: of neighbouring tiles. None: `OVERLAP_PX`, or half a tile if that is less.
    frames: number of frames.
    size: height and width of the frames, px.

  Raises:
    InputError: `tile_px` or `overlap_px` is invalid.
  """
  area = max(FRAMES_PX // frames, min(MAX_FRAMES_PX // frames, MIN_PIECE_PX))
  least = MIN_TILE_PX if overlap_px is None else 2 * overlap_px
  fitting = max(math.isqrt(area) // MULTIPLE * MULTIPLE, least)
  if overlap_px is None:
    # With more frames, smaller tiles with less overlap rather than more memory.
    overlap_px = max(min(OVERLAP_PX, (tile_px or fitting) // 2 // MULTIPLE * MULTIPLE), MULTIPLE)
  if overlap_px % MULTIPLE or overlap_px < MULTIPLE:
    raise InputError(f'overlap_px is {overlap_px}, expected a multiple of {MULTIPLE}, at least {MULTIPLE}')
  if tile_px is None:
    return _cheapest_sides(size, overlap_px, area, fitting), overlap_px
  if tile_px % MULTIPLE or tile_px < least:
    raise InputError(f'tile_px is {tile_px}, expected a multiple of {MULTIPLE}, at least {least}')
  return (tile_px, tile_px), overlap_px


def _cheapest_sides(size: tuple[int, int], overlap_px: int, area: int, fitting: int) -> tuple[int, int]:
  """Height and width, within this area, of the tiles with the fewest pixels in total; non-square tiles, such as half
  frames, may need less overlap. `fitting`: the side of a square tile.
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
