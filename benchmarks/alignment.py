"""Alignment errors on real stacks: without alignment, by the network, and by measurement (phase correlation).

python -m benchmarks.alignment --weights=weights/simulated.npz
python -m benchmarks.alignment --weights=weights/simulated.npz --motion_passes=2 --motion_side_px=256 --json=out.json

No method is given the field of view. Two tables:

* Sweeps as captured: residual zoom and displacement, measured by phase correlation (`residual_motion`). 'measured'
  aligns by the same method, so its own row shows only self-consistency.
* Sweeps whose breathing was corrected by their authors, with a known breathing and shake added: the true end-point
  error, root mean square over the image, mean over the frames except the reference. The authors' correction is not
  perfect: the row 'authors' gives the residual as measured, and the last column is the mean error relative to a truth
  that includes it, which favours 'measured'.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Float, Float32, Float64, UInt8
from scipy import ndimage

import focal_jax
from focal_jax import losses, warp
from focal_jax.align import motion
from focal_jax.align.measured import residual_motion
from focal_jax.command_line import run_program
from focal_jax.data.folder import read_stack_folder
from focal_jax.errors import InputError
from focal_jax.models.description import model_from_description, replace_fields
from focal_jax.models.registry import make_model
from focal_jax.prediction.classical_predictor import ClassicalPredictor
from focal_jax.prediction.network_predictor import NetworkPredictor

SWEEPS = ('balls', 'ring', 'pcb', 'pixel_metres')
NEAR_TO_FAR = ('pcb',)
ALIGNED = ('phone_aligned_0', 'phone_aligned_2', 'phone_aligned_4', 'phone_aligned_6')
METHODS = ('none', 'network', 'measured')
MARGIN_PX = 32  # margin around the frames with known motion, for content moved in by zoom and shake

_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights file; default: the shipped weights.')
_STACKS = flags.DEFINE_string('stacks', '../shared/data/stacks', 'Folder with one folder per stack.')
_MAX_SIDE = flags.DEFINE_integer('max_side', 1024, 'Longer side to which frames are reduced, px.')
_ZOOMS = flags.DEFINE_list('zooms', ['0.94', '0.97', '1.03', '1.06'], 'Known zooms of the first frame.')
_SHAKE_PX = flags.DEFINE_float('shake_px', 2.0, 'Standard deviation of the known shake along either axis, px.')
_METHODS = flags.DEFINE_list('methods', list(METHODS), 'Methods to run.')
_PASSES = flags.DEFINE_integer('motion_passes', None, "Number of motion estimates; default: the weights' own.")
_SIDE_PX = flags.DEFINE_integer('motion_side_px', None, "Longer side for motion estimation; default: the weights' own.")
_JSON = flags.DEFINE_string('json', None, 'JSON file for all results.')

Estimate = Callable[[UInt8[np.ndarray, 'N H W 3']], Float[np.ndarray, 'N 3']]


def known_motion(frames: int, zoom: float, shake_px: float, seed: int) -> Float32[np.ndarray, 'N 3']:
  """Motion that `warp` undoes (field of view 1): the content of the first frame is `zoom` times as large as in the
  last, linear in between, with shake of this standard deviation relative to the last frame.
  """
  content = np.linspace(zoom, 1.0, frames)
  shift = np.random.default_rng(seed).normal(0, shake_px, (frames, 2))
  return np.concatenate([(1 - content)[:, None], shift - shift[-1]], axis=-1).astype(np.float32)


def move(
  frames: UInt8[np.ndarray, 'N H W 3'], known: Float32[np.ndarray, 'N 3'], margin: int = MARGIN_PX
) -> UInt8[np.ndarray, 'N h w 3']:
  """Moves frames such that `warp` by the known motion restores them, except for a margin on every side.

  Uses fifth-order splines, which preserve detail.
  """
  size = [length - 2 * margin for length in frames.shape[1:3]]
  moved = np.empty((len(frames), *size, 3), np.uint8)
  for n, (alpha, *shift) in enumerate(known.astype(np.float64)):
    # In px from the centre, the warp at q shows the moved frame at (1 - s alpha) q - shift.
    stretch = np.array([2 * (length // 2) / (length - 1) for length in size])
    scale = 1 / (1 - stretch * alpha)
    centre = (np.array(size) - 1) / 2
    offset = scale * (np.array(shift[::-1]) - centre) + centre + margin
    for c in range(3):
      plane = ndimage.affine_transform(
        frames[n, ..., c].astype(np.float32), scale, offset, tuple(size), order=5, mode='mirror'
      )
      moved[n, ..., c] = np.rint(np.clip(plane, 0, 255))
  return moved


def end_point_error(
  found: Float[np.ndarray, 'N 3'], known: Float[np.ndarray, 'N 3'], size: tuple[int, int]
) -> Float64[np.ndarray, 'N']:
  """End-point error of each frame, root mean square over the image, px; for the last frame, that of the reference
  itself.
  """
  return np.asarray(losses.motion_error(jnp.asarray(found), jnp.asarray(known), *size), np.float64)


def residual(images: UInt8[np.ndarray, 'N H W 3'], found: Float[np.ndarray, 'N 3']) -> dict[str, Any]:
  """Residual motion found by `residual_motion` after alignment by this motion; None where it finds nothing."""
  left = residual_motion(motion.align(images, found.astype(np.float32))[0])
  numbers = {'zoom_range': left.zoom_range, 'rms_px': left.rms_px}
  measured = {name: round(value, 5) if np.isfinite(value) else None for name, value in numbers.items()}
  return measured | {'frames_measured': int(left.measured.sum()), 'frames': len(images)}


def open_network(weights: str | None, arguments: dict[str, int]) -> NetworkPredictor:
  """A network that estimates motion, with the given `motion_*` arguments instead of those in its file.

  Raises:
    InputError: not a weights file, weights without an alignment network, or invalid arguments.
  """
  model = focal_jax.load(weights)
  if model.network is None:
    raise InputError(f"--weights is '{weights}', expected a weights file of a network")
  if not model.has_alignment_network:
    raise InputError(f'{model.name}: has no alignment network, expected weights that have one')
  if not arguments:
    return model
  network = make_model(replace_fields(model_from_description(model.description), arguments))
  return NetworkPredictor(model.name, network, model.variables, model.description | {'changed': arguments}, [])


def estimators(names: Sequence[str], weights: str | None, arguments: dict[str, int]) -> dict[str, Estimate]:
  """The methods with these names, in the order of METHODS.

  Raises:
    InputError: an unknown method, or an error of `open_network`.
  """
  if unknown := set(names) - set(METHODS):
    raise InputError(f"--methods has '{min(unknown)}', expected some of {', '.join(METHODS)}")
  # Field of view 1: not given.
  found: dict[str, Estimate] = {
    'none': lambda images: np.zeros((len(images), 3), np.float32),
    'measured': lambda images: ClassicalPredictor().estimate_motion(images, np.arange(len(images))),
  }
  if 'network' in names:
    model = open_network(weights, arguments)
    found['network'] = lambda images: model.estimate_motion(images, np.arange(len(images)), align='network')
  return {name: found[name] for name in METHODS if name in names}


def measure_sweep(images: UInt8[np.ndarray, 'N H W 3'], methods: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
  """Residual motion by method."""
  return {name: residual(images, estimate(images)) for name, estimate in methods.items()}


def measure_known(
  images: UInt8[np.ndarray, 'N H W 3'], methods: dict[str, Estimate], zooms: Sequence[float], shake_px: float
) -> dict[str, dict[str, Any]]:
  """By method: mean end-point error of the frames except the reference, px, by zoom; and 'corrected', their mean
  relative to a truth that also includes the motion that `residual_motion` finds in the original frames.
  """
  count = len(images)
  inner = images[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
  authors, size = ClassicalPredictor().estimate_motion(inner, np.arange(count)), inner.shape[1:3]
  errors: dict[str, dict[str, Any]] = {name: {} for name in methods}
  corrected = {name: [] for name in methods}
  for seed, zoom in enumerate(zooms):
    known = known_motion(count, zoom, shake_px, seed)
    both = np.asarray(warp.compose_motion(jnp.ones(count), jnp.asarray(known), jnp.asarray(authors), size))
    moved = move(images, known)
    for name, estimate in methods.items():
      found = estimate(moved)
      errors[name][f'{zoom:g}'] = round(float(end_point_error(found, known, size)[:-1].mean()), 4)
      corrected[name].append(end_point_error(found, both, size)[:-1].mean())
  return {name: {'by_zoom': errors[name], 'corrected': round(float(np.mean(corrected[name])), 4)} for name in methods}


def read(folder: Path, max_side: int) -> UInt8[np.ndarray, 'N H W 3'] | None:
  """The frames of a stack, far to near; None, with a message, if the folder does not exist."""
  if not folder.is_dir():
    print(f'{folder.name} is skipped: there is no folder {folder}')
    return None
  return read_stack_folder(folder, max_side=max_side, reverse=folder.name in NEAR_TO_FAR).images


def _zooms(texts: Sequence[str]) -> list[float]:
  try:
    zooms = [float(text) for text in texts]
  except ValueError:
    zooms = []
  if not zooms or not all(0.8 <= zoom <= 1.25 for zoom in zooms):
    raise InputError(f'--zooms is {",".join(texts)!r}, expected numbers from 0.8 to 1.25')
  return zooms


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def main(argv: list[str]) -> None:
  del argv
  logging.getLogger('absl').setLevel(logging.WARNING)
  folder, zooms = Path(_STACKS.value), _zooms(_ZOOMS.value)
  if _MAX_SIDE.value < 128:
    raise InputError(f'--max_side is {_MAX_SIDE.value}, expected at least 128')
  if not 0 <= _SHAKE_PX.value <= MARGIN_PX / 4:
    raise InputError(f'--shake_px is {_SHAKE_PX.value}, expected 0 to {MARGIN_PX / 4:g}')
  if _JSON.value and not Path(_JSON.value).parent.is_dir():
    raise InputError(f"--json is '{_JSON.value}', expected a file in an existing folder")
  given = {'motion_passes': _PASSES.value, 'motion_side_px': _SIDE_PX.value}
  changed = {name: value for name, value in given.items() if value is not None}
  methods = estimators(_METHODS.value, _WEIGHTS.value, changed)
  if not folder.is_dir():
    print(f'Nothing was measured: there is no folder {folder} (--stacks).')
    return
  result = {'weights': _WEIGHTS.value, 'changed': changed, 'sweeps': {}, 'known': {}}

  print('Residual zoom range and displacement (px), by phase correlation; field of view not given\n')
  print(f'| sweep | frames, px | {" | ".join(methods)} |')
  print(f'| --- | --- |{" ---: |" * len(methods)}')
  for name in SWEEPS:
    images = read(folder / name, _MAX_SIDE.value)
    if images is None:
      continue
    measured = measure_sweep(images, methods)
    result['sweeps'][name] = {'size_px': images.shape[1:3], 'methods': measured}
    cells = [f'{_number(m["zoom_range"], 4)}, {_number(m["rms_px"], 2)}' for m in measured.values()]
    print(f'| {name} | {images.shape[2]} x {images.shape[1]} | {" | ".join(cells)} |', flush=True)

  print(f'\nEnd-point error (px) of known motion, shake {_SHAKE_PX.value:g} px, by zoom of the first frame\n')
  print(f'| stack | frames, px | method | {" | ".join(f"{zoom:g}" for zoom in zooms)} | mean | corrected |')
  print(f'| --- | --- | --- |{" ---: |" * (len(zooms) + 2)}')
  for name in ALIGNED:
    images = read(folder / name, _MAX_SIDE.value)
    if images is None:
      continue
    authors = residual(images, np.zeros((len(images), 3), np.float32))
    errors = measure_known(images, methods, zooms, _SHAKE_PX.value)
    height, width = (length - 2 * MARGIN_PX for length in images.shape[1:3])
    result['known'][name] = {'size_px': (height, width), 'authors': authors, 'methods': errors}
    print(f'| {name} | {width} x {height} | authors |{" |" * len(zooms)} {_number(authors["rms_px"], 2)} | |')
    for method, error in errors.items():
      cells = [f'{px:.2f}' for px in (*error['by_zoom'].values(), np.mean(list(error['by_zoom'].values())))]
      cells.append(f'{error["corrected"]:.2f}')
      print(f'| {name} | {width} x {height} | {method} | {" | ".join(cells)} |', flush=True)
  if _JSON.value:
    Path(_JSON.value).write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
  run_program(main, 'benchmarks.alignment')
