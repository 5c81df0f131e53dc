"""`--mode=predict`: the frames of one stack to depth, an all-in-focus image and a 3-D model, in files and pictures."""

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

import focal_jax
from focal_jax.align import motion as motions
from focal_jax.align.measured import residual_motion
from focal_jax.api import Model
from focal_jax.data.folder import FolderStack, read_stack_folder
from focal_jax.data.frames import Region
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.errors import InputError
from focal_jax.files import pictures
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.focus.all_in_focus import all_in_focus
from focal_jax.prediction import surface as surfaces
from focal_jax.prediction.animation import write_animation
from focal_jax.prediction.classical_predictor import ClassicalModel
from focal_jax.prediction.depth_png import write_depth_png
from focal_jax.prediction.model_files import write_glb, write_ply
from focal_jax.prediction.report_page import write_report
from focal_jax.prediction.tiles import FRAMES_PX, predict_in_tiles
from focal_jax.stack import Prediction

log = logging.getLogger(__name__)

ALIGNMENTS = ('measured', 'network', 'metadata', 'off')
UNITS = ('metres', 'dioptres', 'index')
MOTION_FILE = 'motion.json'
_MEASURED_SIDE_PX = 1280  # to which frames are reduced to measure their motion: finer detail does not change it
_PICTURE_SIDE_PX = 1024  # of what contact sheets show


@dataclasses.dataclass(frozen=True)
class Options:
  """How a stack is predicted.

  Attributes:
    method: 'network'; or 'classical' or 'classical:MEASURE' (`classical.MEASURES`), which need no weights.
    weights: as for `focal_jax.load`; the network's, so None for other methods.
    align: 'measured' by phase correlation (`ClassicalModel.estimate_motion`), 'network' by the alignment network,
      'metadata' by the field of view alone, or 'off'.
    motion: motion.json of an earlier prediction, in place of `align`.
    only_align: no depth.
    near_to_far: without focus distances, the order of the frames is near to far.
    exif_dioptres: see `read_stack_folder`.
    region: see `read_stack_folder`.
    max_side: longer side that frames are reduced to, px; None: as they are.
    tile_px: largest side of the tiles that larger frames are predicted in (`tiles`); None: by their number.
    unit: that depth is written in, one of UNITS; None: that of the focus distances.
    min_confidence: of the points of cloud and mesh, 0 .. 1.

  Raises:
    InputError: a value that is not allowed, or two that exclude each other.
  """

  method: str = 'network'
  weights: str | None = None
  align: str = 'measured'
  motion: Path | None = None
  only_align: bool = False
  near_to_far: bool = False
  exif_dioptres: bool = False
  region: Region | None = None
  max_side: int | None = 1024
  tile_px: int | None = None
  unit: str | None = None
  min_confidence: float = 0.1

  def __post_init__(self):
    if self.align not in ALIGNMENTS:
      raise InputError(f"align is '{self.align}', expected one of {', '.join(ALIGNMENTS)}")
    if self.unit is not None and self.unit not in UNITS:
      raise InputError(f"unit is '{self.unit}', expected one of {', '.join(UNITS)}")
    if not 0 <= self.min_confidence <= 1:
      raise InputError(f'min_confidence is {self.min_confidence}, expected 0 .. 1')
    if self.method != 'network' and self.method.partition(':')[0] != 'classical':
      raise InputError(f"method is '{self.method}', expected network, classical or classical:MEASURE")
    if self.method != 'network' and self.weights is not None:
      raise InputError(
        f"weights is '{self.weights}' and method '{self.method}', expected no weights: they belong to the network"
      )
    if self.method != 'network' and self.align == 'network':
      raise InputError(f"align is 'network' and method '{self.method}', expected measured, metadata or off")
    if self.only_align and self.align == 'off':
      raise InputError("only_align is set and align is 'off', expected another alignment")


def predict_folder(
  source: str | Path | Sequence[str | Path], out: Path, options: Options = Options(), *, overwrite: bool = False
) -> Prediction | None:
  """Reads a stack (`data.folder`), predicts, and writes into `out`:

  * depth.npy (float32 [H, W], in the unit chosen), depth_16bit.png with its scale in depth_16bit.json, depth.png in
    colour; confidence.npy and confidence.png;
  * all_in_focus.png; aligned/*.png, the frames as aligned to the nearest one, motion.json, alignment.gif;
  * points.ply, mesh.ply and mesh.glb (`products.surface`);
  * report.html, to look at and to question; contact_sheet.png; and summary.json, which says, too, how far the frames
    were from the nearest one before and after alignment (`residual_motion`).

  With `only_align`: of these aligned/*.png, motion.json, alignment.gif and summary.json.

  Args:
    source: a folder or image files, see `read_stack_folder`.
    out: new or empty, unless `overwrite`.
    overwrite: results that are in `out` already are replaced.

  Returns:
    The prediction, depth in the unit of the focus distances; None with `only_align`.

  Raises:
    InputError: something about the stack, the weights, the options or `out`; then nothing has been written.
  """
  check_output(out, overwrite)
  model = focal_jax.load(options.weights if options.method == 'network' else options.method)
  stack = read_stack_folder(
    source,
    max_side=options.max_side,
    reverse=options.near_to_far,
    region=options.region,
    exif_dioptres=options.exif_dioptres,
  )
  for note in stack.notes:
    log.info('%s', note)
  unit = _Unit(stack, options.unit)
  frames, height, width = stack.images.shape[:3]
  name = Path(source).name if isinstance(source, str | Path) else stack.names[0]
  log.info('%s: %d frames of %d x %d px', name, frames, width, height)
  start = time.perf_counter()
  if options.motion:
    stack, motion = _read_motion(Path(options.motion), stack, options.region)
  else:
    motion = _motion(model, stack, options.align)
  aligned, prediction = None, None
  if options.only_align:
    aligned, _ = motions.align(stack.images, motion, stack.fov)
  else:
    prediction = _predict(model, stack, motion, options.tile_px)
    if stack.focus_unit == DIOPTRE_UNIT:  # what lies beyond the far end of a sweep does not lie beyond infinity
      prediction = prediction.replace(depth=np.maximum(prediction.depth, 0))
    aligned = prediction.aligned
  seconds = time.perf_counter() - start

  residual = {'before': _residual(stack.images), 'after': _residual(aligned)}
  for when, numbers in residual.items():
    log.info('%s alignment: zoom range %s, displacement %s px', when, numbers['zoom_range'], numbers['rms_px'])
  summary = {
    'stack': str(source) if isinstance(source, str | Path) else [str(path) for path in source],
    'frames': stack.names,
    'focus': stack.focus.tolist(),
    'focus_unit': stack.focus_unit,
    'fov': stack.fov.tolist(),
    'focal_length_px': stack.focal_length_px,
    'f_number': stack.f_number,
    'notes': stack.notes,
    'options': {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
    'weights': model.name if options.method == 'network' else None,
    'size_px': [height, width],
    'depth_unit': unit.name,
    'residual_motion': residual,
    'seconds_with_compilation': seconds,
    'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
    'device': str(jax.devices()[0]),
  }
  with result_folder(out, overwrite) as staging:
    _write_alignment(staging, stack, aligned, motion, options.region)
    if prediction is not None:
      summary |= _write_depth(staging, stack, prediction, unit, options.min_confidence, name, residual)
    (staging / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  shown = out / ('alignment.gif' if options.only_align else 'report.html')
  log.info('%.1f s with compilation; wrote %s', seconds, shown)
  return prediction


def _motion(model: Model | ClassicalModel, stack: FolderStack, align: str) -> Float32[np.ndarray, 'N 3'] | None:
  """Motion of the frames; None: they are left as they are."""
  if align == 'off':
    return None
  if align == 'metadata':
    return np.zeros((len(stack.images), 3), np.float32)
  if align == 'network':
    return model.estimate_motion(stack.images, stack.focus, stack.fov)
  small = motions.reduced(stack.images, _MEASURED_SIDE_PX)
  found = ClassicalModel().estimate_motion(small, stack.focus, stack.fov)
  return motions.scaled_motion(found, small.shape[1:3], stack.images.shape[1:3])


def _predict(
  model: Model | ClassicalModel, stack: FolderStack, motion: np.ndarray | None, tile_px: int | None
) -> Prediction:
  arguments = (stack.images, stack.focus, stack.fov, motion is not None, motion)
  whole = tile_px is None and np.prod(stack.images.shape[:3]) <= FRAMES_PX
  if whole or isinstance(model, ClassicalModel):
    return model.predict(*arguments)
  return predict_in_tiles(model, *arguments, tile_px=tile_px)


class _Unit:
  """What depth is written in, from the focus coordinate that it is predicted in."""

  def __init__(self, stack: FolderStack, wanted: str | None):
    """`wanted`: one of UNITS, or None for the stack's own.

    Raises:
      InputError: the stack does not tell depth in that unit.
    """
    known = stack.focus_unit
    if wanted in ('metres', 'dioptres') and known != DIOPTRE_UNIT:
      raise InputError(
        f"unit is '{wanted}' and the focus is known as '{known}', expected focus distances in metres: from EXIF, or "
        'metadata.csv or metadata.json beside the frames'
      )
    self.name = {None: known, 'metres': 'm', 'dioptres': DIOPTRE_UNIT, 'index': FRAME_INDEX_UNIT}[wanted]
    self._focus, self._is_own = stack.focus, self.name == known

  def convert(self, depth: Float[np.ndarray, '*S']) -> Float[np.ndarray, '*S']:
    """Metres of 0 dioptres are infinite; indices are those of frames far to near."""
    if self._is_own:
      return depth
    if self.name == 'm':
      with np.errstate(divide='ignore'):
        return (1 / np.maximum(depth, 0)).astype(np.float32)
    return np.interp(depth, self._focus, np.arange(len(self._focus))).astype(np.float32)  # rising: far to near

  def limits(self, depth: Float[np.ndarray, 'H W']) -> tuple[float, float]:
    """Of the colours of a converted depth: the sweep's range, or, if that goes to infinity, the picture's."""
    ends = self.convert(self._focus)
    finite = ends[np.isfinite(ends)]
    if len(finite) == len(ends):
      return float(finite.min()), float(finite.max())
    depth = depth[np.isfinite(depth)]
    return float(finite.min()), float(max(np.quantile(depth, 0.98), finite.max())) if depth.size else finite.max()


def _write_alignment(
  folder: Path, stack: FolderStack, aligned: np.ndarray, motion: np.ndarray | None, region: Region | None
) -> None:
  (folder / 'aligned').mkdir()
  for name, image in zip(stack.names, aligned, strict=True):
    pictures.save_image(folder / 'aligned' / f'{Path(name).stem}.png', pictures.to_uint8(image))
  write_animation(folder / 'alignment.gif', stack.images, aligned)
  if motion is not None:
    content = {
      'meaning': 'alpha (zoom, beside fov), beta and gamma (shift along x and y, px of size_px) of each frame, far to '
      'near, that aligns it to the last one',
      'size_px': list(stack.images.shape[1:3]),
      'region': region,
      'frames': stack.names,
      'fov': stack.fov.tolist(),
      'motion': motion.tolist(),
    }
    (folder / MOTION_FILE).write_text(json.dumps(content, indent=2) + '\n')


def _read_motion(
  path: Path, stack: FolderStack, region: Region | None
) -> tuple[FolderStack, Float32[np.ndarray, 'N 3']]:
  """The stack with the fields of view of the file, and the motion in px of the stack.

  Raises:
    InputError: naming the file, and what in it does not fit.
  """
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    size, names = tuple(content['size_px']), list(content['frames'])
    fov, motion = (np.asarray(content[name], np.float64) for name in ('fov', 'motion'))
    found_region = content['region']
    fits = len(size) == 2 and min(size) > 0 and fov.shape == (len(names),) and motion.shape == (len(names), 3)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path}: cannot be read as a motion file ({error!r}), expected one that predict wrote') from None
  if not fits or not np.isfinite(fov).all() or not np.isfinite(motion).all():
    raise InputError(
      f'{path}: fov and motion are not finite numbers for each frame, expected a file that predict wrote'
    )
  if sorted(names) != sorted(stack.names):
    raise InputError(f'{path}: has the motion of {", ".join(names)}, expected that of {", ".join(stack.names)}')
  if (found_region and list(found_region)) != (region and list(region)):
    raise InputError(f'{path}: has the motion of region {found_region}, expected that of {region}')
  order = [names.index(name) for name in stack.names]
  if order[-1] != len(names) - 1:
    raise InputError(f'{path}: aligns to {names[-1]}, expected {stack.names[-1]}, the nearest frame')
  scaled = motions.scaled_motion(motion[order].astype(np.float32), size, stack.images.shape[1:3])
  return dataclasses.replace(stack, fov=fov[order]), scaled


def _residual(images: np.ndarray) -> dict[str, float | int | None]:
  """How far frames are from the nearest one, measured without the network; None: the pictures do not tell."""
  small = motions.reduced(images if images.dtype == np.uint8 else images.astype(np.float32), _MEASURED_SIDE_PX)
  motion = residual_motion(small)
  scale = images.shape[1] / small.shape[1]
  values = {'zoom_range': motion.zoom_range, 'rms_px': motion.rms_px * scale}
  rounded = {name: round(float(value), 5) if np.isfinite(value) else None for name, value in values.items()}
  return rounded | {'frames_measured': int(motion.measured.sum())}


def _write_depth(
  folder: Path,
  stack: FolderStack,
  prediction: Prediction,
  unit: _Unit,
  min_confidence: float,
  title: str,
  residual: dict[str, dict],
) -> dict[str, Any]:
  """Everything that is made of depth; returns what the summary says of it."""
  depth = unit.convert(prediction.depth)
  limits = unit.limits(depth)
  np.save(folder / 'depth.npy', depth)
  np.save(folder / 'confidence.npy', prediction.confidence)
  write_depth_png(folder / 'depth_16bit.png', depth, unit.name)
  depth_panel = pictures.Panel('depth', _for_picture(depth), unit.name, limits)
  confidence_panel = pictures.Panel(
    'confidence', _for_picture(prediction.confidence), 'share', (0.0, 1.0), pictures.CONFIDENCE_COLOURS
  )
  pictures.contact_sheet(folder / 'depth.png', [[depth_panel]])
  pictures.contact_sheet(folder / 'confidence.png', [[confidence_panel]])

  sharp = all_in_focus(prediction, stack.focus)
  pictures.save_image(folder / 'all_in_focus.png', pictures.to_uint8(sharp))
  extension = surfaces.extension(stack.focal_length, stack.focus, stack.focus_unit)
  camera = surfaces.camera_of(*depth.shape, stack.focal_length_px, stack.principal_point_px, extension)
  surface = surfaces.make_surface(
    prediction.depth,
    prediction.confidence,
    pictures.to_uint8(sharp),
    stack.focus,
    stack.focus_unit,
    camera,
    min_confidence=min_confidence,
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
  """Every so-manieth row and column, of large ones: a contact sheet shows no more."""
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
      'grey',
      (0.0, 0.3),
      'magma',
    )
    for when, (a, b) in zip(('as given', 'aligned'), ends, strict=True)
  ]
  return [
    frames,
    [*differences, pictures.Panel('aligned farthest', _for_picture(prediction.aligned[0]))],
    [depth_panel, confidence_panel, pictures.Panel('all in focus', _for_picture(sharp))],
  ]
