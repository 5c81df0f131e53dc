"""`focal-jax predict`: depth, an all-in-focus image and a 3-D model from the frames of one stack, written to files."""

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped

import focal_jax
from focal_jax import backend
from focal_jax.align.estimate import check_alignment, motion_from_measured
from focal_jax.align.measured import ResidualMotion
from focal_jax.align.motion import align as warped_frames
from focal_jax.align.other_scene import find_outlier_frames
from focal_jax.data.folder import FolderStack, read_stack_folder
from focal_jax.data.frames import Region
from focal_jax.data.metadata import DIOPTRE_UNIT
from focal_jax.data.names import format_list, printable
from focal_jax.errors import InputError
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.files.pictures import save_image
from focal_jax.focus.texture import texture_share
from focal_jax.prediction.animation import write_animation
from focal_jax.prediction.full_size import full_size
from focal_jax.prediction.memory import check_memory
from focal_jax.prediction.notes import difference_notes, in_order, reliability_notes
from focal_jax.prediction.predictor import Predictor
from focal_jax.prediction.results import (
  MOTION_FILE,
  UNITS,
  DepthUnit,
  aligned_files,
  common_area,
  in_any,
  measured_residual,
  read_motion,
  residual_after,
  residual_numbers,
  static_pattern_masks,
  write_depth,
  write_motion,
)
from focal_jax.stack import Prediction, as_float

log = logging.getLogger(__name__)

_VISIBLE = 0.01  # luminance 0 .. 1; fainter static content is better in the all-in-focus image than a blurred frame
PLAIN_SHARE = 0.1  # share of the image without texture above which a note is written


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a prediction.

  Attributes:
    method: 'network'; or 'classical' or 'classical:MEASURE' (`classical.MEASURES`), which need no weights.
    weights: of the network, as for `focal_jax.load`; None for other methods.
    align: as for `Predictor.predict`: measured, network, metadata or off.
    motion: motion.json of an earlier prediction, instead of `align`.
    only_align: only align, no depth.
    near_to_far: without focus distances, the order of the frames is near to far.
    far_to_near: likewise, far to near. Neither: derived from the measured zoom (`ResidualMotion.near_end`), or else far
      to near.
    exif_dioptres: see `read_stack_folder`.
    channel: see `read_stack_folder`.
    region: see `read_stack_folder`.
    max_side: longer side of the results, px; None: that of the frames.
    depth_side: longer side that larger frames are reduced to for computing depth, px; depth is then enlarged to
      `max_side`, guided by the all-in-focus image (`prediction.full_size`). None: depth is computed at full size.
    tile_px: as for `Predictor.predict`.
    unit: unit of the written depth, one of UNITS; None: that of the focus distances.
    min_confidence: minimum confidence of points in the cloud and mesh, and of depth drawn in full colour, 0 .. 1.

  Raises:
    InputError: an invalid value, or options that exclude each other.
  """

  method: str = 'network'
  weights: str | None = None
  align: str = 'measured'
  motion: Path | None = None
  only_align: bool = False
  near_to_far: bool = False
  far_to_near: bool = False
  exif_dioptres: bool = False
  channel: int | None = None
  region: Region | None = None
  max_side: int | None = 1024
  depth_side: int | None = 1024
  tile_px: int | None = None
  unit: str | None = None
  min_confidence: float = 0.1

  def __post_init__(self):
    check_alignment(self.align)
    if self.near_to_far and self.far_to_near:
      raise InputError('near_to_far and far_to_near are both set, expected one of the two')
    if self.unit is not None and self.unit not in UNITS:
      raise InputError(f"unit is '{self.unit}', expected one of {', '.join(UNITS)}")
    for name in ('max_side', 'depth_side'):
      if (side := getattr(self, name)) is not None and side < 1:
        raise InputError(f'{name} is {side}, expected at least 1 pixel')
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
    if self.motion is not None and self.align == 'off':
      raise InputError("motion is given and align is 'off', expected one of the two")
    if self.only_align and self.align == 'off':
      raise InputError("only_align is set and align is 'off', expected another alignment")


def predict_folder(
  source: str | Path | Sequence[str | Path], out: Path, options: Options = Options(), *, overwrite: bool = False
) -> Prediction | None:
  """Reads a stack (`data.folder`), predicts as `focal_jax.load(...).predict(...)` does, and writes into `out`:

  * depth.npy (float32 [H, W], in `options.unit`), depth_16bit.png with its scale in depth_16bit.json, depth.png in
    colour; confidence.npy and confidence.png: the method's confidence times that of texture in some frame
    (`focus.texture`), because methods that fill in depth do not report missing texture;
  * all_in_focus.png; aligned/*.png (frames aligned to the nearest one), motion.json, alignment.gif;
  * points.ply, mesh.ply and mesh.glb (`prediction.surface`);
  * report.html, interactive; contact_sheet.png; and summary.json, with the residual motion before and after alignment
    (`residual_motion`) and the area covered by all frames.

  With `only_align`: only aligned/*.png, motion.json, alignment.gif and summary.json.

  Args:
    source: a folder or image files, see `read_stack_folder`.
    out: new or empty folder, unless `overwrite`.
    options: see `Options`.
    overwrite: replace existing results in `out`.

  Returns:
    The prediction, at the size of the depth computation and in the unit of the focus distances, with the written
      confidence; None with `only_align`.

  Raises:
    InputError: an invalid stack, weights, options or `out`; nothing is written then.
  """
  check_output(out, overwrite)
  model = focal_jax.load(options.weights if options.method == 'network' else options.method)
  stack, before, motion = _read(source, out, options)
  unit, size = DepthUnit(stack, options.unit), stack.size(options.max_side)
  name = stack.names[0]
  if isinstance(source, str | Path):
    name = printable(Path(source).name or Path(source).absolute().name)  # '.' has no name
  log.info('%s: %d frames of %d x %d px', name, len(stack.names), size[1], size[0])
  if stack.images.shape[1:3] != size:
    log.info('depth is computed at %d x %d px', *stack.images.shape[2:0:-1])
  for note in stack.notes:
    log.info('%s', note)
  start = time.perf_counter()
  result = _compute(model, stack, before, motion, options)
  for note in result.notes:
    log.info('%s', note)
  stack = dataclasses.replace(stack, notes=[*stack.notes, *result.notes])
  seconds = time.perf_counter() - start

  after = residual_after(result.aligned, before, result.motion, stack.fov)
  residual = {when: residual_numbers(m) for when, m in (('before', before), ('after', after))}
  for when, numbers in residual.items():
    log.info(
      '%s alignment: zoom range %s, rotation %s degrees, displacement %s px',
      *(when, numbers['zoom_range'], numbers['rotation_range_deg'], numbers['rms_px']),
    )
  summary = {
    'stack': printable(source) if isinstance(source, str | Path) else [printable(path) for path in source],
    'frames': stack.names,
    'focus': stack.focus.tolist(),
    'focus_unit': stack.focus_unit,
    'fov': stack.fov.tolist(),
    'focal_length_px': stack.focal_length_px,
    'f_number': stack.f_number,
    'notes': stack.notes,
    'options': {key: printable(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
    'weights': model.name if options.method == 'network' else None,
    'size_px': list(size),
    'depth_unit': unit.name,
    'residual_motion': residual,
    'seconds_with_compilation': seconds,
    'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
    'device': str(backend.default_device()),
  }
  with result_folder(out, overwrite) as staging:
    (staging / 'aligned').mkdir()
    files = aligned_files(staging, stack.names)
    full = full_size(
      *(stack, result.prediction, result.motion, options.max_side),
      save=lambda index, frame: save_image(files[index], frame),
      static=result.static,
    )
    summary['common_area'] = common_area(full.in_all)
    write_animation(staging / 'alignment.gif', stack.images, result.aligned)
    if result.motion is not None:
      write_motion(staging / MOTION_FILE, stack, full, options.region)
    if result.prediction is not None:
      summary |= write_depth(staging, stack, result.prediction, full, unit, options.min_confidence, name, residual)
    (staging / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  if kept := len(list((out / 'aligned').iterdir())) - len(files):
    log.info('%s also contains other files, of an earlier run: %d.', printable(out / 'aligned'), kept)
  written = out / ('alignment.gif' if options.only_align else 'report.html')
  log.info('computed in %.1f s, compilation included; wrote %s', seconds, printable(written))
  return result.prediction


def _read(
  source: str | Path | Sequence[str | Path], out: Path, options: Options
) -> tuple[FolderStack, ResidualMotion, Float[np.ndarray, 'N D'] | None]:
  """The stack, in order and without frames of other scenes; its measured motion; and the motion to align it by, unless
  the method finds that.

  Raises:
    InputError: as for `predict_folder`.
  """
  stack = read_stack_folder(
    source,
    max_side=min((side for side in (options.max_side, options.depth_side) if side is not None), default=None),
    reverse=options.near_to_far,
    region=options.region,
    exif_dioptres=options.exif_dioptres,
    channel=options.channel,
  )
  if any(path.parent.resolve() == out.resolve() for path in stack.paths):
    raise InputError(f'{out}: holds the frames, expected another folder for the results')
  DepthUnit(stack, options.unit)  # before the work, for it may not be known
  if backend.default_device().platform == 'cpu':
    check_memory(
      *(len(stack.names), stack.images.shape[1:3]),
      network=options.method == 'network' and not options.only_align,
      tile_px=options.tile_px,
    )
  measured = measured_residual(stack.images)
  if not stack.all_listed and (others := find_outlier_frames(stack.images, measured.measured)):
    names = [stack.names[n] for n in others]
    does, is_ = ('shows', 'is') if len(names) == 1 else ('show', 'are')
    note = f'Left out: {format_list(names)}, which {does} another scene than the others, or nothing, or {is_} rotated.'
    stack = stack.without(others, note)
    measured = measured_residual(stack.images)
  guessed = not (stack.order_known or options.near_to_far or options.far_to_near)
  if guessed:
    stack, measured = in_order(stack, measured)
  stack = dataclasses.replace(stack, notes=[*stack.notes, *reliability_notes(stack, measured)])
  if options.motion:
    stack, motion = read_motion(Path(options.motion), stack, options.region, may_reverse=guessed)
  else:
    motion = motion_from_measured(measured, stack.fov) if options.align == 'measured' else None
  return stack, measured, motion


@dataclasses.dataclass(frozen=True)
class _Result:
  """What is computed from a stack.

  Attributes:
    prediction: None with `only_align`.
    motion: of the frames, with their rotation if there is any; None: not aligned.
    aligned, coverage: as in `Prediction`.
    static: where static patterns are visible, as for `full_size`; None: nowhere.
    notes: for the user.
  """

  prediction: Prediction | None
  motion: Float[np.ndarray, 'N D'] | None
  aligned: Shaped[np.ndarray, 'N H W 3']
  coverage: Float[np.ndarray, 'N H W']
  static: Sequence[Bool[np.ndarray, 'h w']] | None
  notes: list[str]


def _compute(
  model: Predictor,
  stack: FolderStack,
  measured: ResidualMotion,
  motion: Float[np.ndarray, 'N D'] | None,
  options: Options,
) -> _Result:
  arguments = stack.images, stack.focus, stack.fov
  prediction, static, notes = None, None, []
  if options.only_align:
    motion = model.estimate_motion(*arguments, options.align) if motion is None else motion
    aligned, coverage = warped_frames(stack.images, motion, stack.fov)
  else:
    prediction = model.predict(*arguments, options.align, motion, tile_px=options.tile_px)
    motion = None if options.align == 'off' else prediction.motion
    if prediction.rotation is not None:
      motion = np.concatenate([motion, prediction.rotation[:, None]], -1)
    share = texture_share(lambda n: as_float(stack.images[n]), motion, stack.fov)
    prediction = prediction.replace(confidence=prediction.confidence * share)
    if measured.static_pattern is not None:
      size = stack.images.shape[1:3]
      anywhere = in_any(static_pattern_masks(measured, motion, stack.fov, size), size)
      prediction = prediction.replace(confidence=prediction.confidence * (1 - anywhere))
      static = static_pattern_masks(measured, motion, stack.fov, size, _VISIBLE)
    plain = np.mean(share < 0.5)
    if plain > PLAIN_SHARE:
      notes.append(f'No frame shows texture in {plain:.0%} of the image: confidence is low there.')
    if stack.focus_unit == DIOPTRE_UNIT:  # what lies beyond the far end of a sweep does not lie beyond infinity
      prediction = prediction.replace(depth=np.maximum(prediction.depth, 0))
    aligned, coverage = prediction.aligned, prediction.coverage
  notes += difference_notes(aligned, coverage, stack.names, measured.measured)
  return _Result(prediction, motion, aligned, coverage, static, notes)
