"""A motion (`warp`) on the host: checked, brought to another size, undone in frames of any size or a part of them."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped, UInt8
from scipy import ndimage

from focal_jax import warp
from focal_jax.errors import InputError
from focal_jax.stack import Images, Numbers, checked_stack

Frame = UInt8[np.ndarray, 'H W 3'] | Float32[np.ndarray, 'H W 3']


def checked_motion(
  motion: np.ndarray | jax.Array | None, align: bool, frames: int
) -> Float32[np.ndarray, 'N 3'] | None:
  """A caller's motion as float32, or None, as `api.Model.predict` describes it.

  Raises:
    InputError: it has another shape, numbers that are not finite, or is given although nothing is to be aligned.
  """
  if motion is None:
    return None
  if not align:
    raise InputError('motion is given and align is False, expected one of the two')
  motion = np.array(motion, np.float32)
  if motion.shape != (frames, 3):
    raise InputError(f'motion: shape {motion.shape}, expected ({frames}, 3): zoom, x and y of each frame')
  finite = np.isfinite(motion).all(-1)
  if not finite.all():
    raise InputError(f'motion: {motion[~finite][0].tolist()} at frame {np.argmin(finite)}, expected finite numbers')
  return motion


def scaled_motion(
  motion: Float[np.ndarray, 'N 3'], size: tuple[int, int], to_size: tuple[int, int]
) -> Float[np.ndarray, 'N 3']:
  """Motion of frames of `size` (height, width) as that of the same frames in another size.

  A zoom has no unit, a shift is in px.
  """
  return motion * np.array([1.0, to_size[1] / size[1], to_size[0] / size[0]], motion.dtype)


def align(
  images: Images, motion: np.ndarray | jax.Array, fov: Numbers | None = None
) -> tuple[Shaped[np.ndarray, 'N H W 3'], Float32[np.ndarray, 'N H W']]:
  """Frames aligned by a motion that is known, without a network: `warp.warp`, on the host, one frame after the other.

  Args:
    images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; any H and W.
    motion: [N, 3] (alpha, beta, gamma) as of `Prediction.motion`, in px of these frames; zeros for the field-of-view
      crop alone.
    fov: [N] relative field of view, 1 for the narrowest; None: all 1.

  Returns:
    The frames in the type given (uint8 or float32), black outside; and the share 0 .. 1 of each pixel that came from
    inside its frame.

  Raises:
    InputError: an argument of another shape, type or range.
  """
  stack = checked_stack(images, np.zeros(np.shape(images)[:1]), fov)
  motion = checked_motion(motion, True, len(stack.images))
  aligned = np.empty_like(stack.images)
  coverage = np.empty(aligned.shape[:-1], np.float32)
  for n, frame in enumerate(stack.images):
    values, coverage[n] = warp_region(frame, float(stack.fov[n]), motion[n], (0, 0), frame.shape[:2])
    aligned[n] = np.rint(values) if aligned.dtype == np.uint8 else values
  return aligned, coverage


def warp_region(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, 'h w 3'], Float32[np.ndarray, 'h w']]:
  """Part of a warped frame, and of its coverage; reads no more of the frame than it needs.

  Args:
    frame: whole.
    fov: its relative field of view.
    motion: its motion.
    corner: top and left of the part, px.
    shape: height and width of the part.

  Returns:
    The part in the range of `frame`, zeros outside, and the share of each pixel that came from inside.
  """
  scales, offsets = zip(*_lines(frame, fov, motion, corner), strict=True)
  inside = []
  for scale, offset, size, length in zip(scales, offsets, frame.shape[:2], shape, strict=True):
    position = scale * np.arange(length) + offset
    inside.append(np.clip(np.minimum(position + 1, size - position), 0, 1).astype(np.float32))
  # SciPy rather than `warp.warp`: a photograph of 50 megapixels is resampled a plane at a time, without the matrices or
  # gathers that the device needs, and without compiling anew for every size.
  options = {'output_shape': tuple(shape), 'output': np.float32, 'order': 1, 'mode': 'grid-constant'}
  channels = [ndimage.affine_transform(frame[..., c], scales, offsets, **options) for c in range(3)]
  return np.stack(channels, axis=-1), np.outer(*inside)


def warp_region_sharp(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int], shape: tuple[int, int]
) -> Float32[np.ndarray, 'h w 3']:
  """Part of a frame as `warp.warp_sharp` has it, in the range of `frame`; the arguments are those of `warp_region`."""
  matrices, parts = [], []
  for (scale, offset), size, length in zip(_lines(frame, fov, motion, corner), frame.shape[:2], shape, strict=True):
    # A tile in the middle of a large frame needs the frame's rows and columns around it only.
    position = np.clip(scale * np.arange(length) + offset, 0, size - 1)
    parts.append(slice(max(int(position.min()) - warp.LANCZOS, 0), int(position.max()) + warp.LANCZOS + 1))
    matrices.append(warp.lanczos_weights(position[:, None] - np.arange(size)[parts[-1]]).astype(np.float32))
  rows = np.tensordot(matrices[0], frame[tuple(parts)].astype(np.float32), 1)
  return np.moveaxis(np.tensordot(matrices[1], rows, (1, 1)), 0, 1)


def _lines(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int]
) -> list[tuple[float, float]]:
  """Along y and along x: x - dx of `warp` at the pixels from the corner on, as scale and offset of a straight line."""
  zoom, lines = fov + float(motion[0]) - 1.0, []
  for size, first, shift in zip(frame.shape[:2], corner, motion[:0:-1].tolist(), strict=True):
    slope, intercept = warp.displacement_line(zoom, shift, size)
    lines.append((1.0 - slope, (1.0 - slope) * first - intercept))
  return lines


def reduced(images: Shaped[np.ndarray, 'N H W 3'], side: int) -> Shaped[np.ndarray, 'N h w 3']:
  """Frames whose longer side is `side` px, float32 0 .. 1, one after the other; the same if it is no longer already."""
  size = images.shape[1:3]
  scale = side / max(size)
  if scale >= 1:
    return images
  to_size = tuple(max(round(scale * length), 1) for length in size)
  return np.stack([_reduced(frame, to_size) for frame in images])


@functools.partial(jax.jit, static_argnums=1)
def _reduced(frame: Shaped[Array | np.ndarray, 'H W 3'], size: tuple[int, int]) -> Float[Array, 'h w 3']:
  pixels = frame / np.float32(255) if frame.dtype == np.uint8 else frame
  axes = zip(size, frame.shape[:2], strict=True)
  return warp.resample(pixels, *(warp.reduction_matrix(to, to, length, length) for to, length in axes))
