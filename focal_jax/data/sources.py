"""Sources of stacks: data sets built by `tfds_ddff`, folders of stacks, the simulator, or the included crops. Random
access.

Names of sources: `ddff12` or `ddff12/raw` (built data sets), `folder:DIR`, `simulated`, `simulated/pixel_6` (a preset
of `simulate.cameras.CAMERAS`), `simulated/frozen` (a built data set of simulated stacks), `examples`; or a mixture with
proportions, `0.7*ddff12 + 0.3*simulated`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import tfds_ddff
from focal_jax import optics
from focal_jax.data.folder import read_stack_folder
from focal_jax.errors import InputError, one_line
from focal_jax.files.shipped import shipped_folder
from focal_jax.simulate.stacks import SimulatorSettings, preset_settings, simulate

# Examples are dicts of NumPy arrays, frames far to near; see `tfds_ddff.stack_builder` for the features. (The type is
# no more specific, because checking an element would read an example.)
Source = Sequence[Any]

EXAMPLES = shipped_folder('examples')
DDFF_EXAMPLES = EXAMPLES / 'ddff12_val.h5'
TARGET_FILE = 'target.npy'
MOTION_FILE = 'motion.npy'
FROZEN = 'simulated/frozen'  # a built data set, not the simulator
SIMULATED_LENGTH = 1_000_000  # stacks per epoch; epochs have no meaning here but must be finite


def parse_sources(text: str) -> list[tuple[str, float]]:
  """Names and weights in a text such as '0.7*ddff12 + 0.3*simulated'; the default weight is 1.

  Raises:
    InputError: a name is missing, or a weight is not above 0.
  """
  sources = []
  for part in text.split(' + '):
    weight, name = re.fullmatch(r'(?:([^*:/]*)\*)?(.*)', part.strip()).groups()
    try:
      value = 1.0 if weight is None else float(weight)
    except ValueError:
      value = np.nan
    if not (name and 0 < value < np.inf):
      raise InputError(f"data.source has the part {part!r}, expected 'NAME' or 'WEIGHT*NAME', the weight above 0")
    sources.append((name, value))
  return sources


def open_source(
  name: str, split: str, data_dir: str, simulator: SimulatorSettings | None = None, seed: int = 0
) -> Source:
  """Opens one source.

  Args:
    name: name of the source, see the module.
    split: 'train', 'val' or another split of the data set. `examples` has only 'val'.
    data_dir: folder of the built data sets.
    simulator: settings for `simulated`, required only there; a preset overrides camera, sweep and number of frames.
    seed: seed of simulated stacks; no effect on other sources.

  Returns:
    The source; `source[i]` is a dict with the features of `tfds_ddff.stack_builder`.

  Raises:
    InputError: an unknown source or split.
  """
  if is_simulated(name):
    settings, preset = simulator or SimulatorSettings(), name.partition('/')[2]
    return SimulatedSource(preset_settings(preset, settings) if preset else settings, split, seed)
  if name.startswith('folder:'):
    return FolderSource(Path(name.removeprefix('folder:')), split)
  if name != 'examples':
    return tfds_ddff.load(name, split, data_dir)
  if split != 'val':
    raise InputError(f"eval.split is '{split}', but the data set 'examples' has only the split 'val'")
  return ddff_examples()


def is_simulated(name: str) -> bool:
  return name.partition('/')[0] == 'simulated' and name != FROZEN


class FolderSource(Sequence):
  """One folder per stack, read by `data.folder.read_stack_folder`, with its depth in `target.npy`.

  `target.npy` is [H, W], floating-point: the depth seen in the nearest frame in the unit of the stack's focus (1 / the
  unit of `focus_distance.txt`, or the frame index), not finite where unknown. The stacks are the folders in
  `DIR/<split>`, sorted by name. `motion.npy`, [N, 3], is optional: the true motion of the frames, far to near (written
  by `focal-jax simulate`). Training needs it for all stacks or for none.
  """

  def __init__(self, folder: Path, split: str):
    folder = folder.expanduser() / split
    if not folder.is_dir():
      raise InputError(f'{folder}: found no such folder, expected one that holds a folder for each stack')
    self._folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
    if not self._folders:
      raise InputError(f'{folder}: found no folders, expected one for each stack')
    for path in self._folders:
      if not (path / TARGET_FILE).is_file():
        raise InputError(f'{path / TARGET_FILE}: found no such file, expected the depth of the stack')

  def __len__(self) -> int:
    return len(self._folders)

  @property
  def motion_known(self) -> bool:
    """Whether every stack has its motion in a file.

    Raises:
      InputError: only some have it.
    """
    without = [path for path in self._folders if not (path / MOTION_FILE).is_file()]
    if without and len(without) < len(self._folders):
      raise InputError(
        f'{without[0] / MOTION_FILE}: found no such file, but one in {len(self._folders) - len(without)} of '
        f'{len(self._folders)} stacks; expected it in all of them or in none'
      )
    return not without

  def __getitem__(self, index: int) -> dict[str, Any]:
    folder = self._folders[index]
    stack = read_stack_folder(folder, leave_out_unreadable=False)  # depth may be in frame indices
    shape = stack.images.shape
    target = self._read(folder / TARGET_FILE, shape[1:3])
    known = np.isfinite(target)
    motion = np.full((shape[0], 3), np.nan, np.float32)
    if (folder / MOTION_FILE).is_file():
      motion = self._read(folder / MOTION_FILE, motion.shape).astype(np.float32)
      if not np.isfinite(motion).all():
        raise InputError(f'{folder / MOTION_FILE}: found numbers that are not finite, expected numbers')
    return {
      'images': stack.images,
      'focus': stack.focus.astype(np.float32),
      'fov': stack.fov.astype(np.float32),
      'motion': motion,
      'target': np.where(known, target, 0).astype(np.float32),
      'valid': known.astype(np.float32),
      'name': folder.name,
    }

  @staticmethod
  def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
      array = np.load(path)
    except Exception as error:  # a damaged file can break whatever reads it
      raise InputError(f'{path}: found a file that cannot be read ({one_line(error)}), expected an array') from error
    if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
      raise InputError(f'{path}: is {array.shape} {array.dtype}, expected {shape} floating-point, as the frames')
    return array


_simulate = jax.jit(simulate, static_argnames='settings')  # sources with the same settings share compiled code


class SimulatedSource(Sequence):
  """Stacks of the simulator, rendered one by one on the host's CPU, for mixing with stacks of data sets.

  Training on simulated stacks alone does not use this; it renders them in the training step.
  """

  def __init__(self, settings: SimulatorSettings, split: str, seed: int = 0):
    self._key = jax.random.fold_in(jax.random.key(seed), sum(split.encode()))
    self._device = jax.local_devices(backend='cpu')[0]
    self._settings = settings

  def __len__(self) -> int:
    return SIMULATED_LENGTH

  def __getitem__(self, index: int) -> dict[str, Any]:
    with jax.default_device(self._device):
      stack = _simulate(jax.random.fold_in(self._key, index), settings=self._settings)
    fields = {name: np.asarray(getattr(stack, name)) for name in ('focus', 'fov', 'motion', 'target', 'valid')}
    # In the simulator's own quantisation.
    images, sharp = (np.round(np.asarray(x) * 255).astype(np.uint8) for x in (stack.images, stack.all_in_focus))
    return {'images': images, **fields, 'all_in_focus': sharp, 'name': f'simulated_{index}'}


def _open_examples() -> Any:
  import h5py  # here, because prediction does not need it

  if not DDFF_EXAMPLES.is_file():
    raise InputError(f'{DDFF_EXAMPLES}: found no such file, expected the DDFF-12 crops included with the project')
  return h5py.File(DDFF_EXAMPLES)


def ddff_examples() -> list[dict[str, Any]]:
  """The five real DDFF-12 crops of `examples/`, [10, 224, 224, 3], focus and target in disparity px."""
  with _open_examples() as file:
    stacks, disparities = file['stack_val'][:], file['disp_val'][:]
  focus = optics.ddff_focus_disparities()[::-1].astype(np.float32)
  return [
    {
      'images': stack[::-1, ..., ::-1],  # nearest first and BGR in the official layout
      'focus': focus,
      'fov': np.ones_like(focus),
      'motion': np.zeros((len(focus), 3), np.float32),
      'target': disparity.astype(np.float32),
      'valid': (disparity > 0).astype(np.float32),
      'name': f'val_{index:05}',
    }
    for index, (stack, disparity) in enumerate(zip(stacks, disparities, strict=True))
  ]


def mean_target(dataset: str, data_dir: str) -> float | None:
  """Mean valid target of the training split, which is the best constant prediction. None if there is no such split, or
  no depth in it.
  """
  if dataset == 'examples':
    with _open_examples() as file:
      return float(file.attrs['mean_train_disparity_px'])
  if is_simulated(dataset):  # endless
    return None
  try:
    source = open_source(dataset, 'train', data_dir)
  except InputError:
    return None
  total = count = 0.0
  for example in tqdm(source, desc=f'mean depth of {dataset} train', unit='stack'):
    total += float(np.sum(example['target'] * example['valid'], dtype=np.float64))
    count += float(np.sum(example['valid'], dtype=np.float64))
  return total / count if count else None
