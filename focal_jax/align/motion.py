"""Motions (see `warp`) on the host: checks, conversion between image sizes, alignment of frames or parts of them."""

import concurrent.futures
import functools
import math

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from focal_jax import warp
from focal_jax.errors import InputError
from focal_jax.stack import FocalStack, Images, Numbers, checked_stack

MIN_ROTATION_PX = 0.1  # rotations that move no pixel farther are ignored
_SLACK_PX = 1e-3  # tolerance for positions beyond the border: the precision of float32

Frame = UInt8[np.ndarray, 'H W C'] | Float32[np.ndarray, 'H W C']


def checked_motion(motion: np.ndarray | jax.Array, frames: int) -> Float32[np.ndarray, 'N K']:
  """A caller's motion as float32: three values per frame, or four with a rotation.

  Args:
    motion: [N, 3] or [N, 4].
    frames: N.

  Raises:
    InputError: a wrong shape, or values that are not finite.
  """
  motion = np.array(motion, np.float32)
  if motion.shape not in ((frames, 3), (frames, 4)):
    raise InputError(
      f'motion: shape {motion.shape}, expected ({frames}, 3), zoom, x and y of each frame, '
      f'or ({frames}, 4) with its rotation'
    )
  finite = np.isfinite(motion).all(-1)
  if not finite.all():
    raise InputError(f'motion: {motion[~finite][0].tolist()} at frame {np.argmin(finite)}, expected finite numbers')
  return motion


def scaled_motion(
  motion: Float[np.ndarray, 'N K'], size: tuple[int, int], to_size: tuple[int, int]
) -> Float[np.ndarray, 'N K']:
  """Converts the motion of frames of `size` (height, width) to that of the same frames in another size.

  Zoom and rotation do not change; shifts scale with the size.
  """
  scale = np.array([1.0, to_size[1] / size[1], to_size[0] / size[0], 1.0], motion.dtype)
  return motion * scale[: motion.shape[1]]


def align(
  images: Images, motion: np.ndarray | jax.Array, fov: Numbers | None = None
) -> tuple[Shaped[np.ndarray, 'N H W 3'], Float32[np.ndarray, 'N H W']]:
  """Aligns frames by a known motion, without a network: `rotate_back`, then `warp.warp`, on the host, frame by frame.

  Args:
    images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; any H and W.
    motion: [N, 3] (alpha, beta, gamma) as in `Prediction.motion`, in px of these frames; zeros for only the
      field-of-view crop. [N, 4] with a rotation.
    fov: [N] relative field of view, 1 for the narrowest; None: all 1.

  Returns:
    The frames in their own type (uint8 or float32), black outside; and the share 0 .. 1 of each pixel that came from
      inside its frame.

  Raises:
    InputError: an argument with a wrong shape, type or range.
  """
  stack = checked_stack(images, np.zeros(np.shape(images)[:1]), fov)
  motion = checked_motion(motion, len(stack.images))
  aligned = np.empty_like(stack.images)
  coverage = np.empty(aligned.shape[:-1], np.float32)
  stack, rest = without_rotation(stack, motion)
  for n, frame in enumerate(stack.images):
    values, coverage[n] = warp_region(frame, float(stack.fov[n]), rest[n], (0, 0), frame.shape[:2])
    aligned[n] = np.rint(values) if aligned.dtype == np.uint8 else values
  mask_rotated_borders(coverage, motion, stack.fov)
  return aligned, coverage


def align_sharp(
  frame: UInt8[np.ndarray, 'H W 3'], motion: Float[np.ndarray, 'K'], fov: float = 1.0
) -> tuple[UInt8[np.ndarray, 'H W 3'], Bool[np.ndarray, 'H W']]:
  """Aligns one frame like `align`, but with the Lanczos kernel of `warp.warp_sharp`, or cubic splines for rotated
  frames, which keep detail that linear interpolation loses. For display, at any size.

  Args:
    frame: the whole frame, RGB 0 .. 255.
    motion: (alpha, beta, gamma) of the frame in its px, and a rotation if it is rotated.
    fov: relative field of view of the frame.

  Returns:
    The aligned frame, black outside, and which of its pixels came from inside.
  """
  lines = _sampling_lines(frame, fov, motion[:3], (0, 0))
  if len(motion) > 3 and exceeds_min_rotation(motion[3:], frame.shape[:2])[0]:
    return _align_rotated(frame, lines, float(motion[3]))
  aligned, inside = np.zeros_like(frame), np.zeros(frame.shape[:2], bool)
  spans, box = [], []
  for (scale, offset), length in zip(lines, frame.shape[:2], strict=True):
    # Pixels whose whole footprint, of width `scale`, lies in the frame. The tolerance absorbs float32 rounding of a
    # zero motion.
    edges = scale * (np.arange(length)[:, None] + np.array([-0.5, 0.5])) + offset + 0.5
    within = np.flatnonzero((edges.min(-1) >= -_SLACK_PX) & (edges.max(-1) <= length + _SLACK_PX))
    if len(within) == 0 or scale <= 0:
      return aligned, inside
    spans.append(slice(int(within[0]), int(within[-1]) + 1))
    box.append(np.clip((edges[within[0], 0], edges[within[-1], 1]), 0, length).tolist())
  (top, bottom), (left, right) = box
  # Pillow takes a tenth of the time of products with `warp.lanczos_weights`.
  size = tuple(span.stop - span.start for span in spans[::-1])
  aligned[tuple(spans)] = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, (left, top, right, bottom))
  inside[tuple(spans)] = True
  return aligned, inside


def align_plane(
  plane: Float32[np.ndarray, 'H W'], motion: Float[np.ndarray, 'K'], fov: float
) -> Float[np.ndarray, 'H W']:
  """Resamples any values of a frame, such as a mask, to the aligned frame, 0 outside; other arguments as in
  `align_sharp`.
  """
  scales, offsets = np.transpose(_sampling_lines(plane[..., None], fov, motion[:3], (0, 0)))
  centre = (np.array(plane.shape) - 1) / 2
  turn = _rotation_matrix(float(motion[3]) if len(motion) > 3 else 0.0)
  return ndimage.affine_transform(plane, turn * scales, centre + turn @ (offsets - centre), order=1, mode='constant')


def _align_rotated(
  frame: UInt8[np.ndarray, 'H W 3'], lines: list[tuple[float, float]], angle: float
) -> tuple[UInt8[np.ndarray, 'H W 3'], Bool[np.ndarray, 'H W']]:
  """`align_sharp` for a frame rotated by `angle` (radians): rotation and warp in one resampling step."""
  size = frame.shape[:2]
  scales, offsets = np.transpose(lines)
  centre = (np.array(size) - 1) / 2
  turn = _rotation_matrix(angle)
  matrix, offset = turn * scales, centre + turn @ (offsets - centre)
  aligned = np.empty_like(frame)

  def fill_channel(c):
    coefficients = ndimage.spline_filter(frame[..., c], order=3, mode='mirror', output=np.float32)
    values = ndimage.affine_transform(coefficients, matrix, offset, order=3, mode='mirror', prefilter=False)
    aligned[..., c] = np.rint(np.clip(values, 0, 255))

  # SciPy releases the GIL.
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    list(pool.map(fill_channel, range(3)))
  y, x = (np.arange(length, dtype=np.float32) for length in size)
  inside = np.ones(size, bool)
  for (of_y, of_x), start, length in zip(matrix.astype(np.float32), offset.astype(np.float32), size, strict=True):
    place = of_y * y[:, None] + (of_x * x + start)
    inside &= (place >= -_SLACK_PX) & (place <= length - 1 + _SLACK_PX)
  aligned[~inside] = 0
  return aligned, inside


def _rotation_matrix(angle: float) -> Float[np.ndarray, '2 2']:
  """Matrix for (y, x), from positions in the result to positions in a frame rotated by `angle`, radians clockwise."""
  cos, sin = np.cos(angle), np.sin(angle)
  return np.array([[cos, sin], [-sin, cos]])


def without_rotation(
  stack: FocalStack, motion: Float32[np.ndarray, 'N K']
) -> tuple[FocalStack, Float32[np.ndarray, 'N 3']]:
  """The stack with rotation undone, and the rest of its motion. Unchanged for a motion [N, 3].

  `mask_rotated_borders` removes the pixels that this loses at the borders from the coverage.
  """
  if motion.shape[1] == 3:
    return stack, motion
  images, _ = rotate_back(stack.images, motion[:, 3], with_coverage=False)
  return stack.replace(images=images), motion[:, :3]


def mask_rotated_borders(
  coverage: Float[np.ndarray, 'N H W'], motion: Float[np.ndarray, 'N K'], fov: Float[np.ndarray, 'N']
) -> None:
  """Removes pixels that were outside before the rotation was undone from the coverage of warped frames, in place."""
  size = coverage.shape[1:]
  if motion.shape[1] == 3:
    return
  for n in np.flatnonzero(exceeds_min_rotation(motion[:, 3], size)):
    outside = 1 - _rotation_coverage(float(motion[n, 3]), size)
    # Pixels beyond the frame count as inside here; `warp.coverage` excludes them.
    warped, _ = warp_region(outside[..., None], float(fov[n]), motion[n, :3], (0, 0), size)
    coverage[n] *= 1 - warped[..., 0]


def _rotation_coverage(angle: float, size: tuple[int, int]) -> Float32[np.ndarray, 'H W']:
  """Share of each pixel of a frame rotated back by `angle` that came from inside it."""
  centre = (np.array(size) - 1) / 2
  y, x = np.arange(size[0])[:, None] - centre[0], np.arange(size[1]) - centre[1]
  places = (of_y * y + of_x * x + middle for (of_y, of_x), middle in zip(_rotation_matrix(angle), centre, strict=True))
  share = math.prod(_coverage_along_axis(at, length) for at, length in zip(places, size, strict=True))
  return share.astype(np.float32)


def exceeds_min_rotation(rotation: Float[np.ndarray, 'N'], size: tuple[int, int]) -> Bool[np.ndarray, 'N']:
  """Whether each rotation (radians) moves a corner of frames of this height and width more than `MIN_ROTATION_PX`."""
  return np.abs(rotation) * np.hypot(*size) / 2 > MIN_ROTATION_PX


def rotate_back(
  images: Images, rotation: Float[np.ndarray, 'N'], *, with_coverage: bool = True
) -> tuple[Shaped[np.ndarray, 'N H W 3'], Float32[np.ndarray, 'N H W'] | None]:
  """Rotates frames about their centres, against a measured rotation (`measured.ResidualMotion.rotation`).

  The published warp has no rotation, so rotated frames are rotated back before it. Cubic splines are used because
  linear interpolation would remove noise, and with it apparent sharpness, from all but the unrotated frames, which are
  returned unchanged.

  Args:
    images: uint8 or float32 0 .. 1.
    rotation: radians, clockwise in the image; NaN counts as 0.
    with_coverage: whether to return the coverage.

  Returns:
    The frames in their own type, edges repeated outside; and the share 0 .. 1 of each pixel that came from inside its
      frame, or None.
  """
  size = images.shape[1:3]
  centre = (np.array(size) - 1) / 2
  turned, coverage = np.array(images), np.ones(images.shape[:3], np.float32) if with_coverage else None
  rotation = np.nan_to_num(rotation)
  for n in np.flatnonzero(exceeds_min_rotation(rotation, size)):
    matrix = _rotation_matrix(float(rotation[n]))
    offset = centre - matrix @ centre
    for c in range(3):
      channel = images[n, ..., c].astype(np.float32)
      values = ndimage.affine_transform(channel, matrix, offset, order=3, mode='nearest')
      white = 255 if images.dtype == np.uint8 else 1
      values = np.clip(values, 0, white)
      turned[n, ..., c] = np.rint(values) if images.dtype == np.uint8 else values
    if with_coverage:
      coverage[n] = _rotation_coverage(float(rotation[n]), size)
  return turned, coverage


def warp_region(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, 'h w C'], Float32[np.ndarray, 'h w']]:
  """Part of a warped frame, and of its coverage; reads only the pixels of the frame that it needs.

  Args:
    frame: the whole frame, uint8 0 .. 255 or float32.
    fov: its relative field of view.
    motion: its motion (alpha, beta, gamma), px.
    corner: top and left of the part, px.
    shape: height and width of the part, px.

  Returns:
    The part in the value range of `frame`, zeros outside, and the share of each pixel that came from inside.
  """
  scales, offsets = zip(*_sampling_lines(frame, fov, motion, corner), strict=True)
  inside = []
  for scale, offset, size, length in zip(scales, offsets, frame.shape[:2], shape, strict=True):
    position = scale * np.arange(length) + offset
    inside.append(_coverage_along_axis(position, size).astype(np.float32))
  # SciPy rather than `warp.warp`: it resamples a 50-megapixel photograph one plane at a time, without the matrices or
  # gathers of the device version, and without compiling for every size.
  options = {'output_shape': tuple(shape), 'output': np.float32, 'order': 1, 'mode': 'grid-constant'}
  channels = [ndimage.affine_transform(frame[..., c], scales, offsets, **options) for c in range(frame.shape[-1])]
  return np.stack(channels, axis=-1), np.outer(*inside)


def warp_region_sharp(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int], shape: tuple[int, int]
) -> Float32[np.ndarray, 'h w 3']:
  """Part of a frame resampled as by `warp.warp_sharp`, in the value range of `frame`; arguments as in `warp_region`."""
  matrices, parts = [], []
  for (scale, offset), size, length in zip(
    _sampling_lines(frame, fov, motion, corner), frame.shape[:2], shape, strict=True
  ):
    # A tile of a large frame needs only the rows and columns around it.
    position = np.clip(scale * np.arange(length) + offset, 0, size - 1)
    parts.append(slice(max(int(position.min()) - warp.LANCZOS, 0), int(position.max()) + warp.LANCZOS + 1))
    matrices.append(warp.lanczos_weights(position[:, None] - np.arange(size)[parts[-1]]).astype(np.float32))
  rows = np.tensordot(matrices[0], frame[tuple(parts)].astype(np.float32), 1)
  return np.moveaxis(np.tensordot(matrices[1], rows, (1, 1)), 0, 1)


def _coverage_along_axis(position: np.ndarray, length: int) -> np.ndarray:
  """Share 0 .. 1 of a pixel at these positions along an axis that lies inside a frame of this length."""
  return np.clip(np.minimum(position + 1, length - position), 0, 1)


def _sampling_lines(
  frame: Frame, fov: float, motion: Float[np.ndarray, '3'], corner: tuple[int, int]
) -> list[tuple[float, float]]:
  """x - dx of `warp` at the pixels from the corner on, along y and along x, as scale and offset of a straight line."""
  zoom, lines = fov + float(motion[0]) - 1.0, []
  for size, first, shift in zip(frame.shape[:2], corner, motion[:0:-1].tolist(), strict=True):
    slope, intercept = warp.displacement_line(zoom, shift, size)
    lines.append((1.0 - slope, (1.0 - slope) * first - intercept))
  return lines


def reduced(images: Shaped[np.ndarray, 'N H W 3'], side: int) -> Shaped[np.ndarray, 'N h w 3']:
  """Frames reduced to a longer side of at most `side` px, one at a time: float32 0 .. 1 if reduced, else unchanged."""
  size = images.shape[1:3]
  scale = side / max(size)
  if scale >= 1:
    return images
  to_size = tuple(max(round(scale * length), 1) for length in size)
  return np.stack([_reduced(frame, to_size) for frame in images])


@functools.partial(jax.jit, static_argnums=1)
def _reduced(frame: Shaped[Array | np.ndarray, 'H W 3'], size: tuple[int, int]) -> Float[Array, 'h w 3']:
  pixels = frame / np.float32(255) if frame.dtype == np.uint8 else frame.astype(np.float32)
  axes = zip(size, frame.shape[:2], strict=True)
  return warp.resample(pixels, *(warp.reduction_matrix(to, to, length, length) for to, length in axes))
