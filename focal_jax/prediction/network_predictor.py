"""Prediction by a network with weights, for frames of any size."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32

from focal_jax.align.estimate import find_motion
from focal_jax.align.motion import reduced, scaled_motion
from focal_jax.backend import compiler_options, release_memory
from focal_jax.models.alignment import MetadataAlignment, NoAlignment
from focal_jax.models.end_to_end import padded_size, reduced_size
from focal_jax.prediction.predictor import Predictor, undo_rotation
from focal_jax.prediction.tiles import MOTION_SIDE_PX, are_needed, predict_in_tiles, tile_sides
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack, float_images


class NetworkPredictor(Predictor):
  """A network with its weights; see `focal_jax.load`.

  Attributes:
    name: the weights file.
    network: the network without its weights.
    description: the description in the weights file; for a published file, the model and its arguments.
    unused: tensors of a published file that the network does not use.
  """

  def __init__(self, name: str, network: nn.Module, variables: dict, description: dict[str, Any], unused: list[str]):
    self.name, self.network, self.description, self.unused = name, network, description, unused
    self.trained_on = tuple(description.get('data', ()))
    # A module of another type is assumed to have one.
    alignment = getattr(network, 'alignment', None)
    self.has_alignment_network = not isinstance(alignment, MetadataAlignment | NoAlignment)
    self._variables = jax.device_put(variables)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def apply(variables, images, focus, fov, size, motion):
      given = {} if motion is None else {'motion': motion}
      stack = float_images(FocalStack(images, focus, fov))
      return network.apply(variables, stack, align=motion is not None, size=size, **given)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def estimate_motion(variables, stack, size):
      return network.apply(variables, float_images(stack), size=size, method='estimate_motion')

    self._apply, self._estimate_motion = apply, estimate_motion
    self._compiled: set[tuple] = set()

  @property
  def variables(self) -> dict:
    """The weights: {'params', 'batch_stats'}, on the device."""
    return self._variables

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: str = 'measured',
    motion: np.ndarray | jax.Array | None = None,
    *,
    tile_px: int | None = None,
    overlap_px: int | None = None,
  ) -> Prediction:
    """Depth of one focal stack; see `Predictor.predict`.

    Frames too large for one piece, or all frames if `tile_px` is given, are predicted in overlapping tiles, with a
    progress bar (`tiles`). Depth then equals that of the whole frames, except for context that the network would see
    beyond a tile. A second call does not compile again if the number of frames, and height and width rounded up to
    multiples of 32, are the same.

    Args:
      images, focus, fov, align, motion: as for any predictor.
      tile_px: maximum height and width of a tile, a multiple of 32, at least twice `overlap_px`. None: no tiles for up
        to 5.7 megapixels in all frames; otherwise the largest tiles that take no more memory.
      overlap_px: minimum overlap of neighbouring tiles, a multiple of 32. None: 320, or half a tile if that is less.

    Returns:
      numpy arrays: `depth` and `confidence` [H, W], `pyramid` of [H, W], coarse to fine, `weights` and `coverage` [N,
        H, W], `aligned` [N, H, W, 3] float 0 .. 1, `motion` [N, 3] (alpha, beta, gamma), float32. With tiles, per-frame
        results are float16, to save memory, and `pyramid` is None. Depth is in the unit of `focus`; with the shipped
        network it may lie beyond the first and last focus by a part of their range.

    Raises:
      InputError: an argument with a wrong shape, type or range.
    """
    stack = checked_stack(images, focus, fov)
    in_tiles = are_needed(stack, tile_px)
    frames, *size = stack.images.shape[:3]
    sides, overlap = tile_sides(tile_px, overlap_px, frames, tuple(size)) if in_tiles else (None, 0)
    motion = self._find_motion(stack, align, motion, in_tiles)
    return undo_rotation(self._predict_upright, stack, motion, sides, overlap)

  def _predict_upright(
    self, stack: FocalStack, motion: Float32[np.ndarray, 'N 3'] | None, sides: tuple[int, int] | None, overlap_px: int
  ) -> Prediction:
    """`sides`: height and width of a tile; None: in one piece."""
    if sides:
      sharp = motion is not None and self.network.resampling == 'lanczos'
      return predict_in_tiles(self._predict_whole, stack, motion, sides, overlap_px, sharp=sharp)
    return self._predict_whole(stack, motion)

  def estimate_motion(
    self, images: Images, focus: Numbers, fov: Numbers | None = None, align: str = 'measured'
  ) -> Float32[np.ndarray, 'N K'] | None:
    """The motion (alpha, beta, gamma) that `predict` would undo, without depth; see `Predictor.estimate_motion`."""
    stack = checked_stack(images, focus, fov)
    return self._find_motion(stack, align, None, are_needed(stack, None))

  def _find_motion(
    self, stack: FocalStack, align: str, given: np.ndarray | jax.Array | None, in_tiles: bool
  ) -> Float32[np.ndarray, 'N K'] | None:
    network = functools.partial(self._network_motion, max_side=MOTION_SIDE_PX if in_tiles else None)
    return find_motion(
      stack, align, given=given, network=network if self.has_alignment_network else None, name=self.name
    )

  def _network_motion(self, stack: FocalStack, max_side: int | None) -> Float32[np.ndarray, 'N 3']:
    """`max_side`: longer side to which frames are reduced before, px, because memory grows with it; None: as configured
    in the network, which for published networks means no reduction.
    """
    size = stack.images.shape[1:3]
    array = padded_size(*size)
    if max_side is not None:
      # Padded as by the network's own reduction, because borders affect the result.
      side = min(self.network.motion_side_px or max_side, max_side)
      array = reduced_size(*array, side)
      stack = stack.replace(images=reduced(stack.images, side))
    found = jax.device_get(self._estimate_motion(self._variables, *_padded(stack, array)))[0]
    return scaled_motion(found, stack.images.shape[1:3], size)

  def _predict_whole(self, stack: FocalStack, motion: Float32[np.ndarray, 'N 3'] | None) -> Prediction:
    """In one piece. `motion`: the motion to undo; None: frames stay as they are."""
    height, width = stack.images.shape[1:3]
    batch, size = _padded(stack, padded_size(height, width))
    given = None if motion is None else motion[None]
    arguments = self._variables, batch.images, batch.focus, batch.fov, size, given
    shape = batch.images.shape, given is None
    if shape not in self._compiled:
      self._apply.lower(*arguments).compile()  # the call below reuses this
      release_memory()
      self._compiled.add(shape)
    prediction = jax.device_get(self._apply(*arguments))
    return jax.tree.map(lambda x: x[0], prediction).cropped(height, width)


def _padded(stack: FocalStack, array: tuple[int, int]) -> tuple[FocalStack, tuple[np.int32, np.int32]]:
  """A batch of one stack, its frames at the top left of arrays with this height and width; and the frames' own size."""
  size = stack.images.shape[1:3]
  widths = ((0, to - length) for to, length in zip(array, size, strict=True))
  padded = stack.replace(images=np.pad(stack.images, ((0, 0), *widths, (0, 0))))
  return jax.tree.map(lambda x: x[None], padded), tuple(map(np.int32, size))
