"""The reference frame with everything in focus.

Depth gives the frames near which a pixel is sharp, but not to a fraction of a frame, and at surface edges not to the
pixel. Each pixel is therefore taken from the frames with the most detail among those near its depth and that of its
neighbours. Frames far from its depth are excluded, however much detail they show: it is noise, or blurred edges of
surfaces at other distances. Where no frame shows detail, the frames near the depth are averaged, which reduces noise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from focal_jax.focus.classical import LAPLACIAN, LUMA, correlate, gaussian_window, luminance_on_host
from focal_jax.stack import Prediction

COVERED = 0.99  # minimum coverage of a pixel: pixels beyond the border of a frame are extrapolated and excluded
NEIGHBOURS_PX = 8  # px of the depth map: maximum displacement of an edge in the depth map
REACH = (2.0, 0.05)  # distance from the depth within which frames are used: in frames, and as a share of all frames
DETAIL_PX = 1.5  # standard deviation of the window in which detail is compared
# Chosen on simulated sweeps of phones and a camera: lower powers mix sharp frames with others, higher ones pick noise.
POWER = 12  # of the detail, for a frame's weight
NOISE = 2.0  # detail up to this multiple of that in the plain parts of a frame counts as noise
MIN_NOISE = 0.5 / 255  # minimum noise: that of rounding to 8 bits
_PLAIN = 0.1  # share of a frame that counts as plain


class Fusion:
  """Accumulates an all-in-focus image frame by frame, in any order, so that a stack of photographs need not be in
  memory.
  """

  def __init__(
    self,
    ranks: tuple[Float[np.ndarray, 'h w'], Float[np.ndarray, 'h w']],
    frames: int,
    size: tuple[int, int],
    *,
    any_depth: bool = False,
  ):
    """Args:
    ranks: see `sharp_ranks`; of the size of the pictures, or reduced.
    frames: how many there are.
    size: height and width of the pictures.
    any_depth: frames far from the depth of a pixel are used, too.
    """
    self._ranks = tuple(_enlarged(rank, size) for rank in ranks)
    self._reach = np.float32(frames if any_depth else REACH[0] + REACH[1] * frames)
    self._noise = None
    self._total, self._sum = jnp.zeros(size, jnp.float32), jnp.zeros((*size, 3), jnp.float32)

  def add(
    self,
    frame: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3'],
    inside: Bool[np.ndarray, 'H W'],
    rank: int,
  ) -> None:
    """Adds an aligned frame, uint8 or float 0 .. 1, with its covered pixels and its rank in the order of focus."""
    if self._noise is None:
      self._noise = np.float32(NOISE * plain_detail(frame))
    arguments = frame, inside, *self._ranks, np.float32(rank), self._reach, self._noise
    self._total, self._sum = _add(self._total, self._sum, *arguments)

  def picture(self, reference: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3']) -> Float32[np.ndarray, 'H W 3']:
    """RGB 0 .. 1; the reference frame where no eligible frame covers the pixel."""
    return np.asarray(_mean(self._total, self._sum, reference))


def all_in_focus(prediction: Prediction, focus: Float[np.ndarray, 'N']) -> Float[np.ndarray, 'H W 3']:
  """All-in-focus image from the aligned frames of a prediction; RGB 0 .. 1, float32.

  Each pixel is taken from the frames with the most detail among those near its depth and that of its neighbours. Frames
  that do not fully cover a pixel are left out; where none is left, the reference frame is used. If the network predicts
  an all-in-focus image, that is used wherever all frames cover the pixel.

  Args:
    prediction: of one stack, on the host.
    focus: focus coordinate of each frame, in any order and spacing.
  """
  fusion = Fusion(sharp_ranks(prediction, focus), len(focus), prediction.depth.shape)
  for frame, coverage, rank in zip(prediction.aligned, prediction.coverage, ranks_of(focus), strict=True):
    fusion.add(frame, coverage > COVERED, rank)
  image = fusion.picture(prediction.aligned[-1])
  if prediction.all_in_focus is not None:
    everywhere = np.min(prediction.coverage, axis=0) > COVERED
    image = np.clip(np.where(everywhere[..., None], prediction.all_in_focus, image), 0, 1)
  return image


def ranks_of(focus: Float[np.ndarray, 'N']) -> list[int]:
  """Rank of each frame in the order of focus, 0 .. N - 1."""
  return np.argsort(np.argsort(focus, kind='stable')).tolist()


def plain_detail(frame: UInt8[np.ndarray, 'H W 3'] | Float[np.ndarray, 'H W 3']) -> float:
  """Mean absolute Laplacian of luminance 0 .. 1 where a frame shows least of it: its noise, for something is out of
  focus, or plain, in every frame.
  """
  if min(frame.shape[:2]) < 3:
    return MIN_NOISE
  luma = {
    (y, x): luminance_on_host(frame[y : y - 2 or None : 3, x : x - 2 or None : 3])
    for y, x in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1))
  }
  detail = np.abs(sum(luma.values()) - 5 * luma[1, 1]) / (255 if frame.dtype == np.uint8 else 1)
  means = ndimage.uniform_filter(detail, 5)[2::5, 2::5] if min(detail.shape) >= 5 else detail
  means = means[means > 0]  # 0 is what a program made: outside, or clipped
  return max(float(np.quantile(means, _PLAIN)), MIN_NOISE) if means.size else MIN_NOISE


def sharp_ranks(
  prediction: Prediction, focus: Float[np.ndarray, 'N']
) -> tuple[Float32[np.ndarray, 'h w'], Float32[np.ndarray, 'h w']]:
  """Between which places in the order of focus, with fractions, each pixel is sharp: least and greatest of its own
  depth, the peak of its focus distribution if there is one, and those of its neighbours within `NEIGHBOURS_PX`.
  """
  order = np.argsort(focus, kind='stable')
  low = high = np.interp(prediction.depth, np.asarray(focus)[order], np.arange(len(order))).astype(np.float32)
  if prediction.weights is not None:
    # At the edges of surfaces a distribution has two peaks, and the mean of neither.
    peak = np.argsort(order).astype(np.float32)[np.argmax(prediction.weights, axis=0)]
    low, high = np.minimum(low, peak), np.maximum(high, peak)
  window = 2 * NEIGHBOURS_PX + 1
  return ndimage.minimum_filter(low, window), ndimage.maximum_filter(high, window)


def _enlarged(values: Float[np.ndarray, 'h w'], size: tuple[int, int]) -> Float32[np.ndarray, 'H W']:
  if values.shape == tuple(size):
    return values
  return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _add(
  total: Float[Array, 'H W'],
  image: Float[Array, 'H W 3'],
  frame: Shaped[Array, 'H W 3'],
  inside: Bool[Array, 'H W'],
  low: Float[Array, 'H W'],
  high: Float[Array, 'H W'],
  rank: Float[Array, ''],
  reach: Float[Array, ''],
  noise: Float[Array, ''],
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W 3']]:
  values = _values(frame)
  luma = sum(share * values[..., c] for c, share in enumerate(LUMA))  # a product would need `values` in memory
  detail = gaussian_window(jnp.abs(correlate(luma[None], LAPLACIAN)), DETAIL_PX)[0]
  beyond = jnp.maximum(jnp.maximum(rank - high, low - rank), 0)
  weight = jnp.where(inside, jnp.clip(reach + 0.5 - beyond, 0, 1) * (detail + noise) ** POWER, 0)
  return total + weight, image + weight[..., None] * values


@jax.jit
def _mean(total, image, reference):
  shown = (total > 0)[..., None]
  return jnp.clip(jnp.where(shown, image / jnp.where(shown, total[..., None], 1), _values(reference)), 0, 1)


def _values(frame: Shaped[Array, 'H W 3']) -> Float[Array, 'H W 3']:
  return frame / jnp.float32(255) if frame.dtype == jnp.uint8 else frame.astype(jnp.float32)
