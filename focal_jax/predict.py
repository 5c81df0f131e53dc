"""`--mode=predict`: a folder of frames to its depth map, in files and in pictures."""

import json
import logging
import time
from pathlib import Path

import jax
import numpy as np

import focal_jax
from focal_jax import pictures
from focal_jax.api import Model
from focal_jax.classical_model import ClassicalModel
from focal_jax.data.folder import FolderStack, read_stack_folder
from focal_jax.errors import InputError
from focal_jax.outputs import check_output, result_folder
from focal_jax.residual_motion import residual_motion
from focal_jax.stack import Prediction

log = logging.getLogger(__name__)


def predict_folder(
  folder: Path,
  out: Path,
  *,
  weights: str | None = None,
  method: str = 'network',
  align: bool = True,
  near_to_far: bool = False,
  max_side: int | None = 1024,
  overwrite: bool = False,
) -> Prediction:
  """Reads a stack (`data.folder`), predicts, and writes into `out`:

  depth.npy, confidence.npy (float32 [H, W]), depth.png and confidence.png in colour with a scale, aligned/*.png, the
  frames as aligned to the nearest one, contact_sheet.png with all that a person wants to see, and summary.json, which
  says, too, how far the frames were from the nearest one before and after alignment (`residual_motion`).

  Args:
    folder: with the images.
    out: new or empty, unless `overwrite`.
    weights: as for `focal_jax.load`; the network's, so None for other methods.
    method: 'network'; or 'classical' or 'classical:MEASURE' (`classical.MEASURES`), which need no weights.
    align: False takes the frames as they are.
    near_to_far: without focus distances, name order is near to far.
    max_side: longer side that frames are reduced to, px; None: as they are.
    overwrite: results that are in `out` already are replaced.

  Raises:
    InputError: something about the folder, the weights, the method or `out`; then nothing has been written.
  """
  check_output(out, overwrite)
  model = _load(method, weights)
  stack = read_stack_folder(folder, max_side=max_side, reverse=near_to_far)
  for note in stack.notes:
    log.info('%s', note)
  frames, height, width = stack.images.shape[:3]
  doing = 'compiling and predicting' if method == 'network' else f'depth from focus without a network ({method})'
  log.info('%s: %d frames of %d x %d px; %s', folder, frames, width, height, doing)
  start = time.perf_counter()
  prediction = model.predict(stack.images, stack.focus, stack.fov, align)
  seconds = time.perf_counter() - start

  residual = {'before': _residual(stack.images), 'after': _residual(prediction.aligned)}
  for when, numbers in residual.items():
    log.info('%s alignment: zoom range %s, displacement %s px', when, numbers['zoom_range'], numbers['rms_px'])

  with result_folder(out, overwrite) as staging:
    np.save(staging / 'depth.npy', prediction.depth)
    np.save(staging / 'confidence.npy', prediction.confidence)
    low, high = float(stack.focus.min()), float(stack.focus.max())
    pictures.contact_sheet(staging / 'depth.png', [[_depth_panel(prediction, stack)]])
    pictures.contact_sheet(staging / 'confidence.png', [[_confidence_panel(prediction)]])
    (staging / 'aligned').mkdir()
    for name, image in zip(stack.names, pictures.to_uint8(prediction.aligned), strict=True):
      pictures.save_image(staging / 'aligned' / f'{Path(name).stem}.png', image)
    pictures.contact_sheet(staging / 'contact_sheet.png', _contact_rows(prediction, stack), folder.name)
    summary = {
      'stack': str(folder),
      'frames': stack.names,
      'focus': stack.focus.tolist(),
      'focus_unit': stack.focus_unit,
      'fov': stack.fov.tolist(),
      'notes': stack.notes,
      'method': method,
      'weights': model.name if method == 'network' else None,
      'align': align,
      'size_px': [height, width],
      'depth_range': [low, high],
      'motion': prediction.motion.tolist(),
      'residual_motion': residual,
      'seconds_with_compilation': seconds,
      'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
      'device': str(jax.devices()[0]),
    }
    (staging / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  log.info('%.1f s with compilation; wrote %s', seconds, out / 'contact_sheet.png')
  return prediction


def _load(method: str, weights: str | None) -> Model | ClassicalModel:
  if method == 'network':
    return focal_jax.load(weights)
  if method.partition(':')[0] != 'classical':
    raise InputError(f"method is '{method}', expected network, classical or classical:MEASURE")
  model = ClassicalModel(method)
  if weights is not None:
    raise InputError(f"weights is '{weights}' and method '{method}', expected no weights: they belong to the network")
  return model


def _residual(images: np.ndarray) -> dict[str, float | int | None]:
  """How far frames are from the nearest one, measured without the network; None: the pictures do not tell."""
  motion = residual_motion(images)
  values = {'zoom_range': motion.zoom_range, 'rms_px': motion.rms_px}
  rounded = {name: round(value, 5) if np.isfinite(value) else None for name, value in values.items()}
  return rounded | {'frames_measured': int(motion.measured.sum())}


def _depth_panel(prediction: Prediction, stack: FolderStack) -> pictures.Panel:
  limits = (float(stack.focus.min()), float(stack.focus.max()))
  return pictures.Panel('depth', prediction.depth, stack.focus_unit, limits)


def _confidence_panel(prediction: Prediction) -> pictures.Panel:
  return pictures.Panel('confidence', prediction.confidence, 'share', (0.0, 1.0), pictures.CONFIDENCE_COLOURS)


def _contact_rows(prediction: Prediction, stack: FolderStack) -> list[list[pictures.Panel]]:
  middle = len(stack.images) // 2
  given = stack.images / 255.0
  frames = [
    pictures.Panel(f'{what}: {stack.names[index]}', stack.images[index])
    for what, index in (('farthest', 0), ('middle', middle), ('nearest', -1))
  ]
  differences = [
    pictures.Panel(
      f'|farthest - nearest|, {when}', np.abs(images[0] - images[-1]).mean(-1), 'grey', (0.0, 0.3), 'magma'
    )
    for when, images in (('as given', given), ('aligned', prediction.aligned))
  ]
  return [
    frames,
    [*differences, pictures.Panel('aligned farthest', prediction.aligned[0])],
    [
      _depth_panel(prediction, stack),
      _confidence_panel(prediction),
    ],
  ]
