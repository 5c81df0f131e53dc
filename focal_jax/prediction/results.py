"""Writes the results of a prediction (numbers, images, surface, report), and reads motion.json."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import ExifTags, Image

from focal_jax.align import static_pattern
from focal_jax.align.estimate import MEASURED_SIDE_PX
from focal_jax.align.measured import ResidualMotion, residual_motion
from focal_jax.align.motion import align_plane, reduced, scaled_motion
from focal_jax.data.folder import FolderStack
from focal_jax.data.frames import Region
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.data.names import natural_order, on_disk
from focal_jax.data.texts import read_text
from focal_jax.errors import InputError, one_line
from focal_jax.files import pictures
from focal_jax.prediction import surface as surfaces
from focal_jax.prediction.depth_png import write_depth_png
from focal_jax.prediction.full_size import FullSize
from focal_jax.prediction.model_files import write_glb, write_ply
from focal_jax.prediction.report_page import write_report
from focal_jax.stack import Prediction

UNITS = ('metres', 'dioptres', 'index')
MOTION_FILE = 'motion.json'
_STEM_BYTES = 240  # maximum length of the names of aligned frames
_PICTURE_SIDE_PX = 1024  # size of images on contact sheets


class DepthUnit:
  """Converts depth from the focus coordinate to the unit that it is written in."""

  def __init__(self, stack: FolderStack, wanted: str | None):
    """Args:
      stack: the stack whose depth is converted.
      wanted: one of UNITS, or None for the stack's own unit.

    Raises:
      InputError: depth cannot be converted to that unit.
    """
    known = stack.focus_unit
    if wanted in ('metres', 'dioptres') and known != DIOPTRE_UNIT:
      raise InputError(
        f"unit is '{wanted}', but the focus is in '{known}', expected focus distances in metres from EXIF, file names, "
        "metadata.csv, metadata.json, or focus_distance.txt with the line 'focus_unit m'"
      )
    self.name = {None: known, 'metres': 'm', 'dioptres': DIOPTRE_UNIT, 'index': FRAME_INDEX_UNIT}[wanted]
    self._focus, self._is_own = stack.focus, self.name == known

  def convert(self, depth: Float[np.ndarray, '*S']) -> Float[np.ndarray, '*S']:
    """Converts depth. 0 dioptres are infinite in metres; indices count frames far to near."""
    if self._is_own:
      return depth
    if self.name == 'm':
      with np.errstate(divide='ignore'):
        return (1 / np.maximum(depth, 0)).astype(np.float32)
    rising = np.argsort(self._focus)  # positions along an axis may fall from far to near
    return np.interp(depth, self._focus[rising], rising).astype(np.float32)

  def limits(self, depth: Float[np.ndarray, 'H W']) -> tuple[float, float]:
    """Colour limits for a converted depth: the range of the sweep, or, if that extends to infinity, of the image."""
    ends = self.convert(self._focus)
    finite = ends[np.isfinite(ends)]
    if len(finite) == len(ends):
      return float(finite.min()), float(finite.max())
    depth = depth[np.isfinite(depth)]
    return float(finite.min()), float(max(np.quantile(depth, 0.98), finite.max())) if depth.size else finite.max()


def aligned_files(folder: Path, names: Sequence[str]) -> list[Path]:
  """Paths of the aligned frames."""
  # Most file systems allow 255 bytes; this leaves room for additions.
  stems = [Path(name).stem.encode()[:_STEM_BYTES].decode(errors='ignore') for name in names]
  # Frames with the same stem, from two folders or of two formats, must not overwrite each other, even if case is
  # ignored.
  unique = len({stem.lower() for stem in stems}) == len(stems)
  names = [stem if unique else f'{n:03d}_{stem}' for n, stem in enumerate(stems)]
  return [folder / 'aligned' / on_disk(f'{name}.png') for name in names]


def write_motion(path: Path, stack: FolderStack, full: FullSize, region: Region | None) -> None:
  """Writes motion.json. `full.motion` must not be None."""
  content = {
    'meaning': 'alpha (zoom, added to fov), beta and gamma (shift along x and y, px of size_px) of each frame, far to '
    'near, which aligns it to the last one',
    'size_px': list(full.in_all.shape),
    'region': region,
    'frames': stack.names,
    'fov': stack.fov.tolist(),
    'motion': full.motion[:, :3].tolist(),
  }
  if full.motion.shape[1] > 3:
    content['rotation_deg'] = np.rad2deg(full.motion[:, 3]).tolist()  # rotation of the frames; undone first
  path.write_text(json.dumps(content, indent=2) + '\n')


def read_motion(
  path: Path, stack: FolderStack, region: Region | None, *, may_reverse: bool = False
) -> tuple[FolderStack, Float32[np.ndarray, 'N K']]:
  """Reads a motion file.

  Args:
    path: a file written by `write_motion`.
    stack: the same frames; some of them, including the nearest; or equally many others, which are matched by the order
      of their names.
    region: region of the stack.
    may_reverse: whether the order of the stack is a guess, which the order in the file overrides.

  Returns:
    The stack with the fields of view from the file, and its motion; shifts are in px of the stack.

  Raises:
    InputError: naming the file and what does not match.
  """
  try:
    content = json.loads(read_text(path))
    size, names = tuple(content['size_px']), list(content['frames'])
    fov, motion = (np.asarray(content[name], np.float64) for name in ('fov', 'motion'))
    rotation = content.get('rotation_deg')
    if rotation is not None:
      motion = np.concatenate([motion, np.deg2rad(np.asarray(rotation, np.float64))[:, None]], -1)
    found_region = content['region']
    fits = len(size) == 2 and min(size) > 0 and fov.shape == (len(names),)
    fits = fits and len(motion) == len(names) == len(set(names)) and motion.shape[1:] in ((3,), (4,))
    fits = fits and all(isinstance(name, str) for name in names)
  except InputError as error:
    raise InputError(f'{error}, expected a motion file from predict') from None
  except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
    reason = f'no {error}' if isinstance(error, KeyError) else one_line(error)
    raise InputError(f'{path}: cannot be read as a motion file ({reason}), expected one from predict') from None
  if not fits or not np.isfinite(fov).all() or not np.isfinite(motion).all():
    raise InputError(f'{path}: fov and motion are not finite numbers for each frame, expected a file from predict')
  if np.min(fov + motion[:, 0]) <= 0 or np.max(np.abs(motion[:, 1:3])) > max(size):
    raise InputError(f'{path}: motion is a zoom of 0 or a shift beyond the frames, expected a file from predict')
  # Some frames may have been removed since.
  are_some = set(stack.names) < set(names)
  if len(names) != len(stack.names) and not are_some:
    raise InputError(f'{path}: contains the motion of {len(names)} frames, expected {len(stack.names)}')
  note = None
  if are_some:
    note = f'{path.name} contains the motion of {len(names)} frames, including these {len(stack.names)}.'
  elif sorted(names) != sorted(stack.names):
    # For example a second illumination or channel, recorded with the same movement.
    note = (
      f'{path.name} contains the motion of {names[0]} to {names[-1]}, which was applied to these frames in name order.'
    )
    place = dict(zip(_in_order(names), _in_order(stack.names), strict=True))
    names = [place[name] for name in names]
  if (found_region and list(found_region)) != (region and list(region)):
    raise InputError(f'{path}: contains the motion of region {found_region}, expected {region}')
  height, width = stack.images.shape[1:3]
  rounding = 1 / min(size) + 1 / min(height, width)
  if not np.isclose(size[0] / size[1], height / width, rtol=rounding):
    raise InputError(f'{path}: is for frames of {size[1]} x {size[0]} px, expected the shape of {width} x {height} px')
  if may_reverse and stack.names[0] == names[-1]:
    stack = stack.reversed(f'The frames were reversed to match the order in {path.name}.')
  order = [names.index(name) for name in stack.names]
  if order[-1] != len(names) - 1:
    raise InputError(f'{path}: aligns to {names[-1]}, expected {stack.names[-1]}, the nearest frame')
  scaled = scaled_motion(motion[order].astype(np.float32), size, (height, width))
  return dataclasses.replace(stack, fov=fov[order], notes=[*stack.notes, note] if note else stack.notes), scaled


def _in_order(names: list[str]) -> list[str]:
  return [path.name for path in natural_order(map(Path, names))]


def measured_residual(images: np.ndarray) -> ResidualMotion:
  """Motion of the frames relative to the nearest comparable one, measured without the network; in their px."""
  with np.errstate(divide='ignore', invalid='ignore'):  # frames of a few pixels, whose motion is NaN
    return _in_px_of(images, residual_motion(_measurable(images), elsewhere=True, find_static_pattern=True))


def residual_after(
  aligned: np.ndarray, before: ResidualMotion, motion: Float32[np.ndarray, 'N K'] | None, fov: Float[np.ndarray, 'N']
) -> ResidualMotion:
  """`measured_residual` of frames that have since been aligned by a motion (or None)."""
  taken = None
  if before.static_pattern is not None:
    taken = _in_aligned_frames(before.static_pattern, motion, fov, aligned.shape[1:3])
  with np.errstate(divide='ignore', invalid='ignore'):
    return _in_px_of(aligned, residual_motion(_measurable(aligned), elsewhere=True, static_pattern_in=taken))


def static_pattern_masks(
  before: ResidualMotion,
  motion: Float32[np.ndarray, 'N K'] | None,
  fov: Float[np.ndarray, 'N'],
  size: tuple[int, int],
  least: float = static_pattern.MIN_CHANGE,
) -> list[Bool[np.ndarray, 'h w']]:
  """Where static content lies in each of the aligned frames, perhaps reduced.

  Args:
    before: motion and static content of the frames before alignment.
    motion: that aligned them. None: they were not aligned.
    fov: relative field of view of each frame.
    size: height and width of the aligned frames.
    least: minimum change of luminance, 0 .. 1, by the static content.
  """
  there = static_pattern.shows(before.static_pattern, least).astype(np.float32)
  return [plane > 0.5 for plane in _in_aligned_frames(there, motion, fov, size)]


def in_any(masks: Sequence[Bool[np.ndarray, 'h w']], size: tuple[int, int]) -> Float32[np.ndarray, 'H W']:
  """Share of each pixel that lies in any of the masks, 0 .. 1, for an image of this height and width."""
  share = np.any(masks, axis=0).astype(np.float32)
  return np.asarray(Image.fromarray(share).resize(size[::-1], Image.Resampling.BILINEAR))


def _in_aligned_frames(
  plane: Float32[np.ndarray, 'h w'],
  motion: Float32[np.ndarray, 'N K'] | None,
  fov: Float[np.ndarray, 'N'],
  size: tuple[int, int],
) -> list[Float32[np.ndarray, 'h w']]:
  """Content at the same place in all frames, as it appears in each aligned frame; `size`: of the frames, px."""
  if motion is None:
    return [plane] * len(fov)
  scaled = scaled_motion(motion, size, plane.shape)
  return [align_plane(plane, scaled[n], float(fov[n])) for n in range(len(fov))]


def _measurable(images: np.ndarray) -> np.ndarray:
  return reduced(images, MEASURED_SIDE_PX)


def _in_px_of(images: np.ndarray, motion: ResidualMotion) -> ResidualMotion:
  scale = images.shape[1] / motion.size[0]
  return dataclasses.replace(motion, shift_px=motion.shift_px * scale, size=images.shape[1:3])


def residual_numbers(motion: ResidualMotion) -> dict[str, float | int | None]:
  """Numbers of `measured_residual` for the summary; None: could not be measured."""
  values = {
    'zoom_range': motion.zoom_range,
    'rotation_range_deg': np.rad2deg(motion.rotation_range),
    'rms_px': motion.rms_px,
  }
  rounded = {name: round(float(value), 5) if np.isfinite(value) else None for name, value in values.items()}
  return rounded | {'frames_measured': int(motion.measured.sum())}


def _exif_of_reference(stack: FolderStack) -> Image.Exif | None:
  """EXIF of the nearest frame, for an image that is already upright."""
  if not stack.paths:
    return None
  try:
    with Image.open(stack.paths[-1]) as image:
      exif = image.getexif()
    if ExifTags.Base.Orientation in exif:
      exif[ExifTags.Base.Orientation] = 1
    exif.tobytes()
  except Exception:  # a format that Pillow does not read, or damaged EXIF that cannot be written
    return None
  return exif


def common_area(in_all: Bool[np.ndarray, 'H W']) -> dict[str, int] | None:
  """A rectangle covered by all aligned frames, px; None if there is none.

  Starts with the whole image and repeatedly removes the side with the most uncovered pixels, until none are left.
  Without rotation this is the largest such rectangle.
  """
  lacks = ~in_all
  top, left, (bottom, right) = 0, 0, lacks.shape
  while top < bottom and left < right and lacks[top:bottom, left:right].any():
    area = lacks[top:bottom, left:right]
    shares = {'top': area[0].mean(), 'bottom': area[-1].mean(), 'left': area[:, 0].mean(), 'right': area[:, -1].mean()}
    side = max(shares, key=shares.get)
    top, bottom = top + (side == 'top'), bottom - (side == 'bottom')
    left, right = left + (side == 'left'), right - (side == 'right')
  if top >= bottom or left >= right:
    return None
  return {'left': left, 'top': top, 'width': right - left, 'height': bottom - top}


def write_depth(
  folder: Path,
  stack: FolderStack,
  prediction: Prediction,
  full: FullSize,
  unit: DepthUnit,
  min_confidence: float,
  title: str,
  residual: dict[str, dict],
) -> dict[str, Any]:
  """Writes everything derived from depth; returns its entries for the summary."""
  depth, sharp = unit.convert(full.depth), full.all_in_focus
  limits = unit.limits(depth)
  np.save(folder / 'depth.npy', depth)
  np.save(folder / 'confidence.npy', full.confidence)
  write_depth_png(folder / 'depth_16bit.png', depth, unit.name)
  faded = full.confidence < min_confidence
  depth_panel = pictures.Panel(
    f'depth (grey: confidence < {min_confidence:g})' if faded.any() else 'depth',
    _for_picture(depth),
    unit.name,
    limits,
    faded=_for_picture(faded),
  )
  confidence_panel = pictures.Panel(
    'confidence', _for_picture(full.confidence), '0 to 1', (0.0, 1.0), pictures.CONFIDENCE_COLOURS
  )
  pictures.contact_sheet(folder / 'depth.png', [[depth_panel]])
  pictures.contact_sheet(folder / 'confidence.png', [[confidence_panel]])

  pictures.save_image(folder / 'all_in_focus.png', sharp, _exif_of_reference(stack))
  extension = surfaces.extension(stack.focal_length, stack.focus, stack.focus_unit)
  # The stack's values are in px of its own images.
  scale = depth.shape[1] / stack.images.shape[2]
  camera = surfaces.camera_of(
    *depth.shape,
    stack.focal_length_px and stack.focal_length_px * scale,
    tuple((at + 0.5) * scale - 0.5 for at in stack.principal_point_px),
    extension,
  )
  surface = surfaces.make_surface(
    full.depth, full.confidence, sharp, stack.focus, stack.focus_unit, camera, min_confidence=min_confidence
  )
  cloud, mesh = surfaces.point_cloud(surface), surfaces.mesh(surface)
  write_ply(folder / 'points.ply', cloud)
  write_ply(folder / 'mesh.ply', mesh)
  write_glb(folder / 'mesh.glb', mesh)
  pictures.contact_sheet(
    folder / 'contact_sheet.png', _contact_rows(prediction, stack, depth_panel, confidence_panel, sharp), title
  )
  facts = [(f'zoom range {when} alignment', str(numbers['zoom_range'])) for when, numbers in residual.items()]
  write_report(
    folder / 'report.html',
    title=title,
    names=stack.names,
    before=stack.images,
    prediction=prediction,
    focus=stack.focus,
    unit=stack.focus_unit,
    picture=sharp,
    surface=surface,
    facts=[*facts, *(('note', note) for note in stack.notes)],
    depth=full.depth,
    confidence=full.confidence,
    min_confidence=min_confidence,
  )
  return {
    'depth_range': list(limits),
    'surface': {
      'unit': surface.unit,
      'focal_length_px': camera.focal_length_px,
      'focal_length_assumed': camera.assumed,
      'farthest': surface.farthest,
      'left_out_for_low_confidence': surface.low_confidence,
      'left_out_as_too_far': surface.too_far,
      'points': len(cloud.points),
      'triangles': len(mesh.triangles),
    },
  }


def _for_picture(image: np.ndarray) -> np.ndarray:
  """Every k-th row and column of a large image, enough for a contact sheet."""
  step = -(-max(image.shape[:2]) // _PICTURE_SIDE_PX)
  return image[::step, ::step]


def _contact_rows(
  prediction: Prediction,
  stack: FolderStack,
  depth_panel: pictures.Panel,
  confidence_panel: pictures.Panel,
  sharp: np.ndarray,
) -> list[list[pictures.Panel]]:
  middle = len(stack.images) // 2
  frames = [
    pictures.Panel(f'{what}: {stack.names[index]}', _for_picture(stack.images[index]))
    for what, index in (('farthest', 0), ('middle', middle), ('nearest', -1))
  ]
  ends = [[_for_picture(images[index]) for index in (0, -1)] for images in (stack.images, prediction.aligned)]
  differences = [
    pictures.Panel(
      f'|farthest - nearest|, {when}',
      np.abs(pictures.to_uint8(a) / 255.0 - pictures.to_uint8(b) / 255.0).mean(-1),
      'grey levels, 0 to 1',
      (0.0, 0.3),
      'magma',
    )
    for when, (a, b) in zip(('unaligned', 'aligned'), ends, strict=True)
  ]
  return [
    frames,
    [*differences, pictures.Panel('aligned farthest', _for_picture(prediction.aligned[0]))],
    [depth_panel, confidence_panel, pictures.Panel('all in focus', _for_picture(sharp))],
  ]
