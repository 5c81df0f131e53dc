"""Points and triangles from a depth map: the scene as seen by the camera of the reference frame.

Coordinates follow glTF: right-handed, x right, y up, the camera at the origin looking along -z. A pixel (x, y) at
distance d, measured along the axis, lies at ((x - cx) d / f, -(y - cy) d / f, -d).
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from focal_jax.errors import InputError

FIELD_OF_VIEW_DEG = 60.0  # assumed for unknown cameras, along the longer side; phones have about 65
FARTHEST = 20.0  # times the nearest focus distance; beyond it, small errors of 1 / distance become large
RELIEF = (1.0, 1.5)  # distances of the nearest and the farthest frame if depth has no scale
RELIEF_UNIT = 'relief, without scale'


@dataclasses.dataclass(frozen=True)
class Camera:
  """Pinhole camera of the aligned frames.

  Attributes:
    focal_length_px: of the pinhole, in pixels of the depth map. If the focus is known, this is the image distance, not
      the focal length of the lens (`extension`).
    principal_point_px: x, y; pixel centres at integers.
    assumed: the focal length is unknown and follows from `FIELD_OF_VIEW_DEG`.
  """

  focal_length_px: float
  principal_point_px: tuple[float, float]
  assumed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
  """One point per pixel.

  Attributes:
    points: coordinates, see the module; NaN for pixels without a point.
    colours: RGB 0 .. 255.
    camera: the camera that sees it.
    unit: of the coordinates: 'm', another length, or `RELIEF_UNIT`.
    farthest: maximum distance of points; None if depth has no scale.
    low_confidence: number of pixels without a point because of their confidence.
    too_far: number of other pixels without a point, because they are not in front of the camera, or too far.
  """

  points: Float32[np.ndarray, 'H W 3']
  colours: UInt8[np.ndarray, 'H W 3']
  camera: Camera
  unit: str
  farthest: float | None
  low_confidence: int
  too_far: int


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
  """Coloured points and the triangles between them, if any, counter-clockwise as seen by the camera.

  Attributes:
    stride: every stride-th row and column of pixels was used.
  """

  points: Float32[np.ndarray, 'V 3']
  colours: UInt8[np.ndarray, 'V 3']
  triangles: Int32[np.ndarray, 'T 3']
  unit: str
  stride: int


def camera_of(
  height: int,
  width: int,
  focal_length_px: float | None = None,
  principal_point_px: tuple[float, float] | None = None,
  extension: float = 1.0,
) -> Camera:
  """The camera, as far as it is known; otherwise `FIELD_OF_VIEW_DEG` and the centre of the image.

  Args:
    height, width: size of the depth map, px.
    focal_length_px: of the lens; None: unknown.
    principal_point_px: x, y; None: the centre.
    extension: image distance over focal length, 1 at infinity or if unknown; see `extension`.

  Raises:
    InputError: the focal length is not above 0.
  """
  if focal_length_px is not None and not (math.isfinite(focal_length_px) and focal_length_px > 0):
    raise InputError(f'focal_length_px is {focal_length_px}, expected a number of pixels above 0')
  guess = max(height, width) / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
  return Camera(
    float(focal_length_px * extension if focal_length_px else guess),
    principal_point_px or ((width - 1) / 2, (height - 1) / 2),
    assumed=focal_length_px is None,
  )


def extension(focal_length: float | None, focus: Float[np.ndarray, 'N'], unit: str) -> float:
  """Image distance over focal length in the nearest frame, to which the others are aligned: 1 / (1 - f / s) for a thin
  lens focused at distance s.

  Args:
    focal_length: of the lens, in the unit of distances. None: unknown.
    focus: focus coordinate of each frame, far to near.
    unit: of `focus`, as in `make_surface`.

  Returns:
    The ratio; 1 if the focal length is unknown, distances have no scale, or a thin lens cannot have such a focus.
  """
  if focal_length is None or length_unit(unit) == RELIEF_UNIT:
    return 1.0
  inverse = focal_length / float(distances(focus, focus, unit)[-1])
  return 1.0 / (1.0 - inverse) if 0 <= inverse < 1 else 1.0


def make_surface(
  depth: Float[np.ndarray, 'H W'],
  confidence: Float[np.ndarray, 'H W'],
  colours: UInt8[np.ndarray, 'H W 3'],
  focus: Float[np.ndarray, 'N'],
  unit: str,
  camera: Camera,
  *,
  min_confidence: float = 0.0,
  farthest: float | None = None,
) -> Surface:
  """Points in space for every pixel of a depth map.

  Args:
    depth: in the unit of `focus`.
    confidence: 0 .. 1.
    colours: of the points, for example `all_in_focus`.
    focus: focus coordinate of each frame, far to near.
    unit: of `focus`: with '1/m', or 1 / another length, the distance is 1 / depth; with 'm' it is the depth itself;
      with any other unit depth has no scale, and distance is linear in depth, from `RELIEF[1]` at the farthest frame to
      `RELIEF[0]` at the nearest.
    camera: of the depth map.
    min_confidence: pixels with less have no point.
    farthest: pixels at a greater distance have no point either, in the unit of distance; None: `FARTHEST` times the
      distance of the nearest frame. Ignored if depth has no scale.

  Raises:
    InputError: a threshold out of range.
  """
  if not 0 <= min_confidence <= 1:
    raise InputError(f'min_confidence is {min_confidence}, expected 0 .. 1')
  if farthest is not None and not farthest > 0:
    raise InputError(f'farthest is {farthest}, expected a distance above 0')
  distance, of_frames, length = distances(depth, focus, unit), distances(focus, focus, unit), length_unit(unit)
  if length == RELIEF_UNIT:
    farthest = None
  elif farthest is None:
    farthest = FARTHEST * float(of_frames.min())
  confident = confidence >= min_confidence
  near = np.isfinite(distance) & (distance > 0) & (distance <= (np.inf if farthest is None else farthest))
  z = np.where(confident & near, distance, np.nan).astype(np.float32)
  rows, columns = (np.arange(n, dtype=np.float32) for n in depth.shape)
  x0, y0 = camera.principal_point_px
  x, y = (columns - x0) / camera.focal_length_px, (rows - y0) / camera.focal_length_px
  return Surface(
    points=np.stack([x * z, -y[:, None] * z, -z], axis=-1),
    colours=colours,
    camera=camera,
    unit=length,
    farthest=farthest,
    low_confidence=int(np.sum(~confident)),
    too_far=int(np.sum(confident & ~near)),
  )


def length_unit(unit: str) -> str:
  """Unit of distances for depth in `unit`: 'm', another length, or `RELIEF_UNIT`."""
  inverse_of = unit.partition('/')[2].strip() if unit.startswith('1') else ''
  return inverse_of or ('m' if unit == 'm' else RELIEF_UNIT)


def distances(values: Float[np.ndarray, '*S'], focus: Float[np.ndarray, 'N'], unit: str) -> Float[np.ndarray, '*S']:
  """Distances for depths or focus coordinates, as in `make_surface`; infinity for 1 / 0 and beyond."""
  if unit == 'm':
    return values
  if length_unit(unit) != RELIEF_UNIT:
    return np.where(values > 0, 1 / np.where(values > 0, values, 1), np.inf)
  far, near = float(focus[0]), float(focus[-1])
  return RELIEF[1] + (RELIEF[0] - RELIEF[1]) * (values - far) / ((near - far) or 1)


def point_cloud(surface: Surface, max_points: int = 1_000_000) -> Geometry:
  """The points of a surface; for large surfaces only those of every second (or third, ...) row and column.

  Raises:
    InputError: `max_points` is below 1.
  """
  stride = _stride(surface, max_points)
  points = surface.points[::stride, ::stride]
  known = np.isfinite(points[..., 2])
  colours = surface.colours[::stride, ::stride]
  return Geometry(points[known], colours[known], np.zeros((0, 3), np.int32), surface.unit, stride)


def mesh(surface: Surface, max_points: int = 250_000, jump: float = 0.05) -> Geometry:
  """Two triangles between every four neighbouring points; large surfaces are subsampled as in `point_cloud`.

  Args:
    surface: the surface.
    max_points: maximum number of points.
    jump: no triangle is made where the farthest corner is more than 1 + jump times as far as the nearest: there one
      surface ends, and another begins behind it.

  Raises:
    InputError: `max_points` is below 1, or `jump` below 0.
  """
  if not jump >= 0:
    raise InputError(f'jump is {jump}, expected a share of the distance, at least 0')
  stride = _stride(surface, max_points)
  points = surface.points[::stride, ::stride]
  corner = np.arange(points.shape[0] * points.shape[1], dtype=np.int32).reshape(points.shape[:2])
  above, below = corner[:-1], corner[1:]
  a, b, c, d = above[:, :-1], above[:, 1:], below[:, :-1], below[:, 1:]
  triangles = np.concatenate([np.stack(three, axis=-1).reshape(-1, 3) for three in ((a, c, b), (b, c, d))])
  points = points.reshape(-1, 3)
  distance = -points[triangles, 2]
  # Comparisons with NaN (corners without a point) are false.
  triangles = triangles[distance.max(1) <= (1 + jump) * distance.min(1)]
  used = np.zeros(len(points), bool)
  used[triangles] = True
  renumbered = np.cumsum(used, dtype=np.int32) - 1
  colours = surface.colours[::stride, ::stride].reshape(-1, 3)
  return Geometry(points[used], colours[used], renumbered[triangles], surface.unit, stride)


def _stride(surface: Surface, max_points: int) -> int:
  """The smallest stride that leaves at most `max_points` pixels."""
  if max_points < 1:
    raise InputError(f'max_points is {max_points}, expected at least 1')
  height, width = surface.points.shape[:2]
  stride = 1
  while math.ceil(height / stride) * math.ceil(width / stride) > max_points:
    stride += 1
  return stride
