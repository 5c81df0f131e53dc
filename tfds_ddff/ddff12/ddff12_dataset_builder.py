"""DDFF-12: focal stacks of twelve indoor scenes, refocused from light fields, with depth of a registered RGB-D camera.

Hazirbas, Soyer, Staab, Leal-Taixe and Cremers, "Deep Depth From Focus", ACCV 2018. The authors publish it at
https://vision.in.tum.de/data/datasets/ddff12scene under CC BY 4.0.

Every example holds ten frames, far to near, focused at planes evenly spaced in disparity, from 0.0202 px (7 m) to
0.2825 px (0.5 m). They are refocused from one light field of a Lytro Illum, and so are aligned (`fov` is 1). The target
is disparity in pixels between neighbouring views of the light field, 0.1412 m px / depth, and `valid` is 1 where it is
above 0, else 0; it is not limited to the range of the focus.

`focus` holds the labels as published. The frames are actually focused elsewhere: the sharpest pixels in a frame
labelled d have a target of about d + 0.062 px (`optics.DDFF_FOCUS_OFFSET_PX`), because the camera's plane of zero
disparity is not at infinity. Networks trained on the data set learn this offset, and keep the labels. For other
methods the corrected focus, 0.0822 to 0.3445 px, is `optics.ddff_focus_disparities(corrected=True)`, or `focus` plus
the offset, which `python -m tfds_ddff.ddff12.measure_focus` measures on the split train; their results are reported
with both.

Config `official` reads the two files of the benchmark:

  split   examples  height x width  file                      keys                     depth
    train       5269  224 x 224       ddff-dataset-trainval.h5  stack_train, disp_train  of at least 80 % of the pixels
    val         1318  224 x 224       ddff-dataset-trainval.h5  stack_val, disp_val      of at least 80 % of the pixels
  test         120  383 x 552       ddff-dataset-test.h5      stack_test               hidden: target and valid are 0

Train and val are crops of the same six scenes, so val says little about other rooms. The benchmark is the test split:
six other scenes, with depth known only to the authors' server. Examples keep the order of the files.

Config `scene_disjoint` reads `my_ddff_trainVal.h5` (17 GB), a repacking by the authors of DFV (Yang, Huang and Zhou,
CVPR 2022): whole frames in RGB, nearest first as in the official files, and `all_in_focus`, which is view (5, 5), one
step from the centre (4, 4) of target and frames:

  split   examples  height x width  keys                                scenes
  train        400  383 x 552       stack_train, disp_train, AiF_train  kitchen, seminaroom, socialcorner, studentlab
  val          200  383 x 552       stack_val, disp_val, AiF_val        glassroom, office41

This is the only protocol that can be evaluated without the server: train on train, and report val where the target is
0.0202 .. 0.2825 px.

Config `raw` refocuses the light fields themselves (`refocus.py`). Its frames differ from the official ones by one grey
level in about one pixel of a thousand. `all_in_focus` is the centre view, and the protocol that of `scene_disjoint`:

  split   examples  height x width  scenes, 100 light fields each in train and val, 20 in test
  train        400  383 x 552       kitchen, seminaroom, socialcorner, studentlab
  val          200  383 x 552       glassroom, office41
  test         120  383 x 552       lockeroom, cafeteria, library, spencerlab, office44, magistrale; depth is hidden

Its files are `LightField/<folder>/<scene>/LF_0001.npy` and so on, [9, 9, H, W, 3] uint8 RGB, and for train and val
`DepthRegistered/train/<scene>/DEPTH_0001.png`, [H, W] uint16 mm, 0 where unknown. `<folder>` is `test` for the split
test, otherwise `train`. A split without any scene is skipped. Examples are named `<scene>_0001`.
"""

import functools
from pathlib import Path

import h5py
import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError, one_line
from focal_jax.optics import DDFF_DISPARITY_M_PX, ddff_focus_disparities
from tfds_ddff.ddff12.refocus import refocus
from tfds_ddff.files import check_array, check_same_size, image_size, open_hdf5, read_array, read_image, to_uint8
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

NUM_FRAMES = 10
TEST_SIZE = (383, 552)  # height, width
TRAINVAL_FILE = 'ddff-dataset-trainval.h5'
TEST_FILE = 'ddff-dataset-test.h5'
SCENE_DISJOINT_FILE = 'my_ddff_trainVal.h5'
HOMEPAGE = 'https://vision.in.tum.de/data/datasets/ddff12scene'
DFV_HOMEPAGE = 'https://github.com/fuy34/DFV'

NUM_VIEWS = 9  # along each side
SCENES = {
  'train': ('kitchen', 'seminaroom', 'socialcorner', 'studentlab'),
  'val': ('glassroom', 'office41'),
  'test': ('lockeroom', 'cafeteria', 'library', 'spencerlab', 'office44', 'magistrale'),  # in the order of TEST_FILE
}
RAW_FOLDERS = {'train': 'train', 'val': 'train', 'test': 'test'}

CITATION = """
@inproceedings{hazirbas2018deep,
  title = {Deep Depth From Focus},
  author = {Hazirbas, Caner and Soyer, Sebastian Georg and Staab, Maximilian Christian and
            Leal-Taix{\\'e}, Laura and Cremers, Daniel},
  booktitle = {Asian Conference on Computer Vision (ACCV)},
  year = {2018},
}
"""


FOCUS_PX = ddff_focus_disparities(NUM_FRAMES)[::-1]  # far to near


def official_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of the official files.

  Args:
    manual_dir: folder with `ddff-dataset-trainval.h5` and, for the split `test`, `ddff-dataset-test.h5`.

  Raises:
    InputError: the first file is missing, or either is damaged or not laid out as described above.
  """
  with open_hdf5(manual_dir / TRAINVAL_FILE, HOMEPAGE) as file:
    splits = {name: _official_split(file, name, ('n', NUM_FRAMES, 'h', 'w', 3)) for name in ('train', 'val')}
  if (manual_dir / TEST_FILE).exists():
    splits['test'] = official_test_split(manual_dir / TEST_FILE)
  return splits


def official_test_split(path: Path) -> SourceSplit:
  """The split `test` of the official files, which needs only this file.

  Raises:
    InputError: the file is missing, damaged, or not laid out as described above.
  """
  with open_hdf5(path, HOMEPAGE) as file:
    return _official_split(file, 'test', ('n', NUM_FRAMES, *TEST_SIZE, 3), hidden=True)


def _official_split(
  file: h5py.File, name: str, stack_shape: tuple[int | str, ...], hidden: bool = False
) -> SourceSplit:
  """Checks the stacks of a split and, unless the depth is `hidden`, that the disparities match them."""
  shape = check_array(file, f'stack_{name}', stack_shape, np.uint8)
  if not hidden:
    check_array(file, f'disp_{name}', (shape[0], *shape[2:4]), np.float64, why=f', because stack_{name} is {shape}')
  read = functools.partial(_read_official, Path(file.filename), name, hidden)
  return SourceSplit(shape[0], shape[0] * stack_bytes(*shape[1:4]), read)


def _read_official(path: Path, split: str, hidden: bool, index: int) -> Example:
  with open_hdf5(path, HOMEPAGE) as file:
    stack = read_array(file, f'stack_{split}', index)
    disparity = None if hidden else read_array(file, f'disp_{split}', index)
  return make_example(
    f'{split}_{index:05d}',
    stack[::-1, ..., ::-1],  # nearest first and BGR in the file
    FOCUS_PX,
    disparity,
    None if hidden else disparity > 0,
  )


def scene_disjoint_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of DFV's repacking.

  Args:
    manual_dir: folder with `my_ddff_trainVal.h5`.

  Raises:
    InputError: the file is missing, damaged, or not laid out as described above.
  """
  with open_hdf5(manual_dir / SCENE_DISJOINT_FILE, DFV_HOMEPAGE) as file:
    return {name: _scene_disjoint_split(file, name) for name in ('train', 'val')}


def _scene_disjoint_split(file: h5py.File, name: str) -> SourceSplit:
  shape = check_array(file, f'stack_{name}', ('n', NUM_FRAMES, 'h', 'w', 3), np.float32)
  why = f', because stack_{name} is {shape}'
  check_array(file, f'disp_{name}', (shape[0], *shape[2:4]), np.floating, why)
  check_array(file, f'AiF_{name}', (shape[0], *shape[2:]), np.float32, why)
  read = functools.partial(_read_scene_disjoint, Path(file.filename), name)
  return SourceSplit(shape[0], shape[0] * stack_bytes(*shape[1:4], all_in_focus=True), read)


def _read_scene_disjoint(path: Path, split: str, index: int) -> Example:
  with open_hdf5(path, DFV_HOMEPAGE) as file:
    stack, disparity, all_in_focus = (read_array(file, f'{key}_{split}', index) for key in ('stack', 'disp', 'AiF'))
  return make_example(
    f'{split}_{index:05d}',
    to_uint8(stack[::-1], f'{path}: stack_{split}[{index}]'),  # nearest first in the file
    FOCUS_PX,
    disparity,
    disparity > 0,
    all_in_focus=to_uint8(all_in_focus, f'{path}: AiF_{split}[{index}]'),
  )


def raw_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits with light fields.

  Args:
    manual_dir: folder with `LightField` and `DepthRegistered`.

  Raises:
    InputError: there are none, a file or scene of a split is missing, a scene is unknown, or a file's header is not as
      described above.
  """
  for folder in ('train', 'test'):
    known = {scene for split, scenes in SCENES.items() if RAW_FOLDERS[split] == folder for scene in scenes}
    for path in sorted((manual_dir / 'LightField' / folder).glob('[!.]*/')):
      if path.name not in known:
        raise InputError(f'{path}: is an unknown scene, expected only {", ".join(sorted(known))}')
  splits = {}
  for split, scenes in SCENES.items():
    parent = manual_dir / 'LightField' / RAW_FOLDERS[split]
    if any((parent / scene).is_dir() for scene in scenes):
      splits[split] = _raw_split(manual_dir, split)
  if not splits:
    raise InputError(
      f'{manual_dir / "LightField"}: found no scenes, expected those of {", ".join(SCENES)} from {HOMEPAGE}'
    )
  return splits


def _raw_split(manual_dir: Path, split: str) -> SourceSplit:
  """Lists and checks the light fields of a split and, except for the test, their depth maps."""
  hidden = split == 'test'
  files: list[tuple[Path, Path | None]] = []
  for scene in SCENES[split]:
    light_fields = manual_dir / 'LightField' / RAW_FOLDERS[split] / scene
    depths = manual_dir / 'DepthRegistered' / RAW_FOLDERS[split] / scene
    if not light_fields.is_dir():
      raise InputError(f'{light_fields}: found no such folder, expected every scene of {split} from {HOMEPAGE}')
    # Numbers without gaps, so that a missing file changes the count.
    count = max(len(list(light_fields.glob('LF_*.npy'))), 0 if hidden else len(list(depths.glob('DEPTH_*.png'))), 1)
    files += [
      (light_fields / f'LF_{number:04d}.npy', None if hidden else depths / f'DEPTH_{number:04d}.png')
      for number in range(1, count + 1)
    ]

  first = files[0][0]
  size = _open_light_field(first).shape[2:4]
  for light_field, depth in files:
    check_same_size(light_field, _open_light_field(light_field).shape[2:4], size, like=first)
    if depth:
      check_same_size(depth, image_size(depth, HOMEPAGE, ('I;16', 'I')), size, like=light_field)
  num_bytes = len(files) * stack_bytes(NUM_FRAMES, *size, all_in_focus=True)
  return SourceSplit(len(files), num_bytes, functools.partial(_read_raw, files))


def _open_light_field(path: Path) -> np.ndarray:
  """[9, 9, H, W, 3] uint8, memory-mapped."""
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {HOMEPAGE}')
  try:
    array = np.load(path, mmap_mode='r')
  except (OSError, EOFError, ValueError) as error:
    raise InputError(
      f'{path}: found a file that cannot be read ({one_line(error)}), expected a whole .npy file'
    ) from error
  if not isinstance(array, np.ndarray):
    raise InputError(f'{path}: found an archive, expected one array')
  views_fit = array.ndim == 5 and array.shape[:2] == (NUM_VIEWS, NUM_VIEWS) and array.shape[4] == 3
  if not views_fit or array.dtype != np.uint8:
    raise InputError(f'{path}: is {array.shape} {array.dtype}, expected ({NUM_VIEWS}, {NUM_VIEWS}, h, w, 3) uint8')
  return array


def _read_raw(files: list[tuple[Path, Path | None]], index: int) -> Example:
  path, depth_path = files[index]
  light_field = _open_light_field(path)
  disparity = valid = None
  if depth_path:
    depth_mm = read_image(depth_path, HOMEPAGE)
    valid = depth_mm > 0
    disparity = DDFF_DISPARITY_M_PX / (np.where(valid, depth_mm, np.inf) / 1000)
  return make_example(
    f'{path.parent.name}_{path.stem.removeprefix("LF_")}',
    refocus(light_field, FOCUS_PX),
    FOCUS_PX,
    disparity,
    valid,
    all_in_focus=np.array(light_field[NUM_VIEWS // 2, NUM_VIEWS // 2]),
  )


class Builder(StackBuilder):
  """TFDS builder of `ddff12`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('2.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'CC BY 4.0, https://creativecommons.org/licenses/by/4.0/'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'{TRAINVAL_FILE} (12.6 GB) and {TEST_FILE} (0.8 GB), or LightField and DepthRegistered, from {HOMEPAGE}; '
    f'or {SCENE_DISJOINT_FILE} (17 GB) from {DFV_HOMEPAGE}'
  )
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='The files of the benchmark: crops for training, full frames with hidden depth for testing.',
      find_splits=official_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
      optional={'test': TEST_FILE},
    ),
    Config(
      name='scene_disjoint',
      description="DFV's repacking: whole frames with depth, four rooms for training and two others for validation.",
      find_splits=scene_disjoint_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
    ),
    Config(
      name='raw',
      description='The light fields and depth maps themselves, refocused here; the splits of scene_disjoint, and test.',
      find_splits=raw_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
      optional={split: f'LightField/{RAW_FOLDERS[split]}/{scenes[0]}' for split, scenes in SCENES.items()},
    ),
  ]
