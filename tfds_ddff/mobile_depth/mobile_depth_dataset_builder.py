"""Mobile Depth: real focus sweeps, most of them by a phone, with calibrated focus distances but no depth.

Suwajanakorn, Hernandez and Seitz, "Depth from Focus with Your Mobile Phone", CVPR 2015. The authors publish it at
https://www.supasorn.com/dffdownload.html and state no licence.

  config     split  examples  files
  unaligned  test         11  Figure<k>/<scene>/NN.jpg          of depth_from_focus_data2.zip
  aligned    test         11  Aligned/Figure<k>/<scene>/aNN.jpg  of depth_from_focus_data3.zip

Both need `calibration/` of the first archive, which may keep its folder `depth_from_focus_data2/`. Examples are sorted
by scene; missing scenes are skipped, as are bucket and kitchen, which have no calibration. The number of frames differs
between scenes, and their size may (balls: 10 frames of 720 x 1280). Pixels are as stored: a rotation in EXIF is not
applied.

`calibrated.txt` has a row 'focus distance, aperture' for each frame, by number, and the focal length alone in the last
row, all in the same arbitrary unit: the authors estimate them from the stack. Only for metals do public readers agree
that the rows are in the opposite order of the frames. Frames are sorted far to near by distance. `focus` is
1 / distance. For `unaligned`, `fov` follows from the distances by the thin lens, and the true motion is unknown. For
`aligned`, `fov` is 1, and the motion is 0 as far as the authors' alignment by optical flow succeeded. There is no
target (`valid` is 0) and no `all_in_focus`.

Protocol: visual inspection, because there is no ground truth. The alignment of the frames can be measured without it
(`focal-jax evaluate` with `eval.align=measured`).
"""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from focal_jax import optics
from focal_jax.errors import InputError
from tfds_ddff.files import Size, common_size, read_image
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

# Scenes and the names of their folders in `calibration/`.
SCENES = {
  'balls': 'balls',
  'bottles': 'bottles',
  'fruits': 'fruits',
  'keyboard': 'keyboard',
  'largemotion': 'GTLarge',
  'metals': 'metal',
  'plants': 'plants',
  'smallmotion': 'GTSmall',
  'telephone': 'telephone',
  'window': 'window',
  'zeromotion': 'GT',
}
UNCALIBRATED = ('bucket', 'kitchen')
ROWS_REVERSED = ('metals',)  # the last row of the calibration belongs to the first frame

ARCHIVE_FOLDER = 'depth_from_focus_data2'
CALIBRATION_FILE = 'calibrated.txt'
FOCUS_UNIT = f'1 / unit of {CALIBRATION_FILE}'
HOMEPAGE = 'https://www.supasorn.com/dffdownload.html'

CITATION = """
@inproceedings{suwajanakorn2015depth,
  title = {Depth from Focus with Your Mobile Phone},
  author = {Suwajanakorn, Supasorn and Hernandez, Carlos and Seitz, Steven M.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2015},
}
"""


@dataclasses.dataclass(frozen=True)
class Scene:
  """One checked sweep: `frames` far to near, [N] `focus` and `fov`, and the size of all frames."""

  name: str
  frames: list[Path]
  focus: np.ndarray
  fov: np.ndarray
  size: Size


def find_splits(manual_dir: Path, aligned: bool) -> dict[str, SourceSplit]:
  """The split `test`.

  Args:
    manual_dir: folder with the unpacked archives, or at least one of their scenes.
    aligned: use the frames aligned by the authors.

  Raises:
    InputError: no scenes, an unknown scene, or a scene whose frames and calibration do not match.
  """
  calibration = _find_folder(manual_dir, 'calibration')
  folders = _scene_folders(_find_folder(manual_dir, 'Aligned') if aligned else calibration.parent)
  scenes = [
    _check_scene(folders[name], calibration / SCENES[name] / CALIBRATION_FILE, aligned) for name in sorted(folders)
  ]
  num_bytes = sum(stack_bytes(len(scene.frames), *scene.size) for scene in scenes)
  return {'test': SourceSplit(len(scenes), num_bytes, lambda index: _read(scenes[index], aligned))}


def _find_folder(manual_dir: Path, name: str) -> Path:
  for folder in (manual_dir / name, manual_dir / ARCHIVE_FOLDER / name):
    if folder.is_dir():
      return folder
  raise InputError(f'{manual_dir}: found no folder {name}, expected it there or in {ARCHIVE_FOLDER}; from {HOMEPAGE}')


def _scene_folders(parent: Path) -> dict[str, Path]:
  """The folder of each calibrated scene in `parent`; there must be at least one."""
  folders = {}
  for folder in sorted(parent.glob('Figure*/*')):
    if not folder.is_dir() or folder.name.startswith('.') or folder.name in UNCALIBRATED:
      continue
    if folder.name not in SCENES:
      raise InputError(f'{folder}: found an unknown scene, expected one of: {", ".join((*SCENES, *UNCALIBRATED))}')
    if folder.name in folders:
      raise InputError(f'{folder}: found a scene that is also {folders[folder.name]}, expected it once')
    folders[folder.name] = folder
  if not folders:
    raise InputError(f'{parent}: found no scenes, expected Figure<k>/<scene> from {HOMEPAGE}')
  return folders


def _check_scene(folder: Path, calibration: Path, aligned: bool) -> Scene:
  pattern = re.compile(r'a(\d+)\.jpg' if aligned else r'(\d+)\.jpg')
  numbered = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
  frames = [numbered[number] for number in sorted(numbered)]
  if len(frames) < 2:
    names = 'a00.jpg, a01.jpg' if aligned else '00.jpg, 01.jpg'
    raise InputError(f'{folder}: found fewer than two frames, expected {names} and so on')
  size = common_size(frames, HOMEPAGE)
  distance, focal_length = _read_calibration(calibration, folder, len(frames))
  if folder.name in ROWS_REVERSED:
    distance = distance[::-1]
  fov = optics.field_of_view_of_sweep(focal_length, distance, str(calibration))
  if aligned:
    fov = np.ones(len(frames))
  order = np.argsort(-distance, kind='stable')
  return Scene(folder.name, [frames[n] for n in order], 1.0 / distance[order], fov[order], size)


def _read_calibration(path: Path, folder: Path, num_frames: int) -> tuple[np.ndarray, float]:
  """[N] focus distances, one for each frame in `folder`, and the focal length, in one unit."""
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {HOMEPAGE}')
  try:
    rows = [[float(word) for word in line.split()] for line in path.read_text('utf-8').splitlines() if line.strip()]
  except ValueError as error:
    raise InputError(f'{path}: found something that is not a number ({error}), expected only numbers') from error
  if len(rows) != num_frames + 1:
    raise InputError(
      f'{path}: found {len(rows)} rows, expected {num_frames + 1}: {num_frames} frames in {folder} and the focal length'
    )
  for number, row in enumerate(rows, 1):
    what = 'focus distance and aperture' if number <= num_frames else 'the focal length alone'
    if len(row) != (2 if number <= num_frames else 1):
      raise InputError(f'{path}: row {number} is {row}, expected {what}')
  return np.array([row[0] for row in rows[:-1]]), rows[-1][0]


def _read(scene: Scene, aligned: bool) -> Example:
  images = np.stack([read_image(path, HOMEPAGE) for path in scene.frames])
  return make_example(scene.name, images, scene.focus, fov=scene.fov, aligned=aligned)


class Builder(StackBuilder):
  """TFDS builder of `mobile_depth`. See the module for configs, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'not stated'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'depth_from_focus_data2.zip (photos and calibration) and, for `aligned`, depth_from_focus_data3.zip from '
    f'{HOMEPAGE}, unpacked'
  )
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name=name,
      description=description,
      find_splits=functools.partial(find_splits, aligned=name == 'aligned'),
      num_frames=None,
      focus_unit=FOCUS_UNIT,
    )
    for name, description in (
      ('unaligned', 'The photos as taken: the field of view changes with the focus, and the hand shakes.'),
      ('aligned', 'The frames aligned by the authors.'),
    )
  ]
