"""DDFF-12: focal stacks of twelve indoor scenes, refocused from light fields, with depth of a registered RGB-D camera.

Hazirbas, Soyer, Staab, Leal-Taixe and Cremers, "Deep Depth From Focus", ACCV 2018. The authors publish it at
https://vision.in.tum.de/data/datasets/ddff12scene under CC BY 4.0.

Every example holds ten frames, far to near, focused at planes evenly spaced in disparity, from 0.0202 px (7 m) to
0.2825 px (0.5 m). They are refocused from one light field of a Lytro Illum, and so are aligned (`fov` is 1). The target
is disparity in pixels between neighbouring views of the light field, 0.1412 m px / depth, and `valid` is 1 where it is
above 0, else 0; it is not limited to the range of the focus.

Config `official` reads the two files of the benchmark:

  split   examples  height x width  file                      keys                     depth
  train       5269  224 x 224       ddff-dataset-trainval.h5  stack_train, disp_train  of 80 % of the pixels or more
  val         1318  224 x 224       ddff-dataset-trainval.h5  stack_val, disp_val      of 80 % of the pixels or more
  test         120  383 x 552       ddff-dataset-test.h5      stack_test               hidden: target and valid are 0

Train and val are crops of the same six scenes, so val says little about other rooms. The benchmark is the test split:
six other scenes, whose depth only the server of the authors knows. Examples keep the order of the files.
"""

import functools
from pathlib import Path

import h5py
import numpy as np
import tensorflow_datasets as tfds

from focal_jax.optics import ddff_focus_disparities
from tfds_ddff.files import check_array, open_hdf5, read_array
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

NUM_FRAMES = 10
TRAINVAL_FILE = 'ddff-dataset-trainval.h5'
TEST_FILE = 'ddff-dataset-test.h5'
HOMEPAGE = 'https://vision.in.tum.de/data/datasets/ddff12scene'

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
    InputError: the first file is missing, or either is damaged or is not laid out as stated above.
  """
  with open_hdf5(manual_dir / TRAINVAL_FILE, HOMEPAGE) as file:
    splits = {name: _official_split(file, name, ('n', NUM_FRAMES, 'h', 'w', 3)) for name in ('train', 'val')}
  if (manual_dir / TEST_FILE).exists():
    with open_hdf5(manual_dir / TEST_FILE, HOMEPAGE) as file:
      splits['test'] = _official_split(file, 'test', ('n', NUM_FRAMES, 383, 552, 3), hidden=True)
  return splits


def _official_split(
  file: h5py.File, name: str, stack_shape: tuple[int | str, ...], hidden: bool = False
) -> SourceSplit:
  """Checks the stacks of a split and, unless the depth is `hidden`, that the disparities fit them."""
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


class Builder(StackBuilder):
  """TFDS builder of `ddff12`. The module states splits, units and protocol."""

  VERSION = tfds.core.Version('2.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'CC BY 4.0, https://creativecommons.org/licenses/by/4.0/'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{TRAINVAL_FILE} (12.6 GB) and {TEST_FILE} (0.8 GB) from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='The files of the benchmark: crops for training, full frames with hidden depth for the test.',
      find_splits=official_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
      optional={'test': TEST_FILE},
    ),
  ]
