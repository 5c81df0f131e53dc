"""`focal-jax simulate`: writes simulated stacks with full ground truth, and contact sheets.

Each stack is a folder that `focal-jax predict` reads; together they are a data source, `folder:DIR`:

  frame_00.png, ...        far to near
  focus_distance.txt       one number per frame; focus and target are in 1 / its unit
  focal_length.txt         if the field of view changes with the focus
  target.npy               float32 [H, W], true depth of the nearest frame, NaN where it is not valid
  motion.npy               float32 [N, 3], true motion of every frame
  truth/all_in_focus.png   in a separate folder, or it would count as a frame
  stack.json               camera, unit, focus, field of view, seed and index

The unit is dioptres, or disparity in px for a camera with that unit. For a camera in metres it is dioptres too, because
folders of stacks have no other unit.
"""

import functools
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float64
from tqdm import tqdm

from focal_jax import optics
from focal_jax.data.metadata import FOCAL_LENGTH_FILE, FOCUS_DISTANCE_FILE
from focal_jax.data.rgbd import fit_to_canvas
from focal_jax.data.sources import MOTION_FILE, TARGET_FILE
from focal_jax.errors import InputError
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.files.pictures import Panel, contact_sheet, save_image, to_uint8
from focal_jax.simulate.cameras import as_camera
from focal_jax.simulate.stacks import SimulatorSettings, focus_unit, preset_settings, simulate, simulate_rgbd
from focal_jax.stack import FocalStack

ALL_IN_FOCUS_FILE = 'truth/all_in_focus.png'
METADATA_FILE = 'stack.json'
CONTACT_SHEET = 'contact_sheet.png'
SHEET_ROWS = 8

log = logging.getLogger(__name__)


def simulate_stacks(
  settings: SimulatorSettings,
  out: Path,
  *,
  presets: Sequence[str] = (),
  count: int = 4,
  photographs: Sequence[Any] | None = None,
  seed: int = 0,
  overwrite: bool = False,
) -> None:
  """Writes stacks into `out/00000`, `out/00001` and so on, with a contact sheet of the first ones.

  With presets, into `out/<preset>/00000` and so on. Stack i is drawn with the key fold_in(key(seed), i), so all presets
  show the same scene.

  Args:
    settings: the simulator's settings.
    out: folder for the results.
    presets: names of cameras in `simulate.cameras.CAMERAS`, each with its own sweep (`preset_settings`). Empty:
      `settings` as they are.
    count: stacks per preset.
    photographs: RGB-D photographs (`data.rgbd.open_rgbd`), used in turn; None: procedural scenes.
    seed: random seed of the stacks.
    overwrite: replace all existing stacks in these folders.

  Raises:
    InputError: an invalid argument, a photograph without depth, or an unusable `out`; nothing is written then.
  """
  check_output(out, overwrite)
  if count < 1:
    raise InputError(f'count is {count}, expected at least 1')
  variants = {name: preset_settings(name, settings) for name in presets} or {'': settings}
  for variant in variants.values():
    focus_unit(variant)  # raises if the cameras have several units

  with result_folder(out, overwrite) as stage, tqdm(total=len(variants) * count, unit=' stacks') as bar:
    for name, variant in variants.items():
      make = stack_maker(variant, seed, photographs)
      rows = []
      for index in range(count):
        stack, facts = make(index)
        folder = stage / name / f'{index:05}'
        facts = write_stack(folder, stack, variant, {'seed': seed, 'index': index, **facts})
        if index < SHEET_ROWS:
          rows.append(_panels(stack, facts))
        bar.update()
      contact_sheet(stage / name / CONTACT_SHEET, rows, name or 'simulated')
    for name in variants:  # an earlier run may have written more stacks
      for facts_file in (out / name).glob(f'[0-9]*/{METADATA_FILE}'):
        shutil.rmtree(facts_file.parent)
  for name in variants:
    log.info('wrote %s', out / name / CONTACT_SHEET)


def stack_maker(
  settings: SimulatorSettings, seed: int, photographs: Sequence[Any] | None = None
) -> Callable[[int], tuple[FocalStack, dict[str, Any]]]:
  """A function from the index of a stack to the stack and a dict of facts about its origin.

  The stack is on the host, with uint8 images, and focus and target in the unit of folders. The function raises
  InputError for a photograph without any depth.
  """
  first = jax.random.key(seed)
  invert = focus_unit(settings) != _folder_unit(settings)
  if photographs is None:
    render = jax.jit(functools.partial(simulate, settings=settings))
  else:
    render = jax.jit(functools.partial(simulate_rgbd, settings=settings))

  def make(index):
    scene, facts = (), {}
    if photographs is not None:
      example = photographs[index % len(photographs)]
      rgb, depth_m = fit_to_canvas(example['rgb'], example['depth_m'], *settings.canvas)
      facts = {'photograph': example['name']}
      if not (depth_m > 0).any():
        raise InputError(f'photograph {example["name"]}: has no known depth, expected some')
      scene = rgb / np.float32(255), depth_m
    stack = jax.device_get(render(jax.random.fold_in(first, index), *scene))
    stack = stack.replace(images=to_uint8(stack.images), all_in_focus=to_uint8(stack.all_in_focus))
    if invert:
      stack = stack.replace(focus=1 / stack.focus, target=1 / stack.target)
    return stack, facts

  return make


def write_stack(folder: Path, stack: FocalStack, settings: SimulatorSettings, more: dict[str, Any]) -> dict[str, Any]:
  """Writes one stack of `stack_maker` in the module's layout.

  Args:
    folder: the stack's folder.
    stack: on the host, uint8 images.
    settings: the simulator's settings.
    more: further entries of stack.json.

  Returns:
    The content of stack.json.
  """
  with np.errstate(divide='ignore'):  # focus 0 is a distance of infinity
    distance = 1 / stack.focus.astype(np.float64)
  camera, focal_length = _camera(stack.fov, distance, settings)
  facts = {
    'camera': camera,
    'unit': _folder_unit(settings),
    'focus': stack.focus.tolist(),
    'fov': stack.fov.tolist(),
    **more,
  }
  (folder / ALL_IN_FOCUS_FILE).parent.mkdir(parents=True)
  for n, image in enumerate(stack.images):
    save_image(folder / f'frame_{n:02}.png', image)
  _write_numbers(folder / FOCUS_DISTANCE_FILE, distance.tolist())
  if focal_length is not None:
    _write_numbers(folder / FOCAL_LENGTH_FILE, [focal_length])
  np.save(folder / TARGET_FILE, np.where(stack.valid > 0, stack.target, np.float32(np.nan)))
  np.save(folder / MOTION_FILE, stack.motion)
  save_image(folder / ALL_IN_FOCUS_FILE, stack.all_in_focus)
  (folder / METADATA_FILE).write_text(json.dumps(facts, indent=2) + '\n')
  return facts


def _folder_unit(settings: SimulatorSettings) -> str:
  unit = focus_unit(settings)
  return '1/m' if unit == 'm' else unit


def _camera(
  fov: Float[np.ndarray, ' N'], distance: Float64[np.ndarray, ' N'], settings: SimulatorSettings
) -> tuple[str | None, float | None]:
  """Name of the camera that a stack was drawn from, and its focal length in the unit of `distance`.

  A stack does not record its camera, but its field of view identifies it. If it is the same in all frames, the focal
  length is None, and the name is known only if there is a single camera.
  """
  cameras = [as_camera(camera) for camera in settings.sweep.cameras]
  metres = optics.DDFF_DISPARITY_M_PX if focus_unit(settings) == 'px' else 1.0  # length of one unit of `distance`
  if np.all(fov == 1):
    return (cameras[0].name if len(cameras) == 1 else None), None

  def error(camera):
    return np.abs(optics.relative_field_of_view(camera.focal_length_m / metres, distance) - fov).max()

  camera = min(cameras, key=error)
  return camera.name, camera.focal_length_m / metres


def _write_numbers(path: Path, numbers: list[float]) -> None:
  path.write_text(''.join(f'{number!r}\n' for number in numbers))  # repr keeps all digits


def _panels(stack: FocalStack, facts: dict[str, Any]) -> list[Panel]:
  """Far, middle and near frame, all-in-focus image, and depth in colours that span the sweep."""
  focus, unit = facts['focus'], facts['unit']
  name = facts.get('photograph', f'{facts["index"]:05}')
  places = ((f'{name}, far', 0), ('middle', len(focus) // 2), ('near', len(focus) - 1))
  frames = [Panel(f'{where}: {focus[n]:.3g} {unit}', stack.images[n]) for where, n in places]
  target = np.where(stack.valid > 0, stack.target, np.nan)
  camera = facts['camera'] or 'unknown camera'
  depth = Panel(f'depth, {camera}', target, unit, (focus[0], focus[-1]))
  return [*frames, Panel('all in focus', stack.all_in_focus), depth]
