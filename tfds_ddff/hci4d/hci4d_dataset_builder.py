"""HCI 4D Light Field: focal stacks of 24 rendered scenes, refocused from light fields, with their true disparity.

Honauer, Johannsen, Kondermann and Goldluecke, "A Dataset and Evaluation Methodology for Depth Estimation on 4D Light
Fields", ACCV 2016. The light fields are at https://lightfield-analysis.uni-konstanz.de/ under CC BY-NC-SA 4.0, as the
tools of the benchmark state. `data/4D-Light-Field_Gen` of AiFDepthNet (Wang, Wang, Liu, Huang, Chang, Chen and Jou,
ICCV 2021, https://github.com/albert100121/AiFDepthNet) makes the stacks from them and writes `HCI_FS_trainval.h5`:

  split  examples  height x width  keys                                scenes
  train        20  512 x 512       stack_train, disp_train, AiF_train  all others
  val           4  512 x 512       stack_val, disp_val, AiF_val        boxes, cotton, dino, sideboard

Every example holds ten frames, far to near as in the file, focused at planes evenly spaced in disparity, -2.5 px to
2.5 px (`focus_position_disp`). They are averages of 9 x 9 shifted views, and so are aligned (`fov` is 1). The target is
signed disparity in pixels between neighbouring views: 0 is an ordinary depth, so logarithms and ratios are meaningless.
It is not limited to the range of the focus. In val `valid` is 1 for -2.5 px .. 2.5 px, including both ends; in train it
is 1 wherever the target is finite; otherwise it is 0. `all_in_focus` is the central view. Examples keep the order of
the file.

Protocol: training on crops of 256 x 256; MSE, RMS error and bumpiness on val.
"""

import functools
from pathlib import Path

import h5py
import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError
from tfds_ddff.files import check_array, open_hdf5, read_array, to_uint8
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

NUM_FRAMES = 10
EVALUATED_PX = 2.5  # val is measured up to this disparity, of either sign
FILE = 'HCI_FS_trainval.h5'
FOCUS_KEY = 'focus_position_disp'
HOMEPAGE = 'https://github.com/albert100121/AiFDepthNet'

CITATION = """
@inproceedings{honauer2016dataset,
  title = {A Dataset and Evaluation Methodology for Depth Estimation on {4D} Light Fields},
  author = {Honauer, Katrin and Johannsen, Ole and Kondermann, Daniel and Goldluecke, Bastian},
  booktitle = {Asian Conference on Computer Vision (ACCV)},
  year = {2016},
}
@inproceedings{wang2021bridging,
  title = {Bridging Unsupervised and Supervised Depth from Focus via All-in-Focus Supervision},
  author = {Wang, Ning-Hsu and Wang, Ren and Liu, Yu-Lun and Huang, Yu-Hao and Chang, Yu-Lin and Chen, Chia-Ping and
            Jou, Kevin},
  booktitle = {International Conference on Computer Vision (ICCV)},
  year = {2021},
}
"""


def find_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of `HCI_FS_trainval.h5`, which must be in `manual_dir`.

  Raises:
    InputError: the file is missing, damaged or not laid out as described above.
  """
  with open_hdf5(manual_dir / FILE, HOMEPAGE) as file:
    focus = _read_focus(file)
    return {name: _find_split(file, name, focus) for name in ('train', 'val')}


def _read_focus(file: h5py.File) -> np.ndarray:
  """[N] focus coordinates in px, which must rise: the frames are far to near."""
  check_array(file, FOCUS_KEY, (1, NUM_FRAMES), np.floating)
  focus = read_array(file, FOCUS_KEY, 0)
  if not (np.isfinite(focus).all() and (np.diff(focus) > 0).all()):
    values = ', '.join(f'{value:.4g}' for value in focus)
    raise InputError(f'{file.filename}: {FOCUS_KEY} is {values}, expected finite numbers, each above the one before')
  return focus


def _find_split(file: h5py.File, name: str, focus: np.ndarray) -> SourceSplit:
  shape = check_array(file, f'stack_{name}', ('n', NUM_FRAMES, 'h', 'w', 3), np.float32)
  count, _, height, width, _ = shape
  why = f', because stack_{name} is {shape}'
  check_array(file, f'disp_{name}', (count, height, width), np.floating, why)
  check_array(file, f'AiF_{name}', (count, height, width, 3), np.float32, why)
  read = functools.partial(_read, Path(file.filename), name, focus)
  return SourceSplit(count, count * stack_bytes(NUM_FRAMES, height, width, all_in_focus=True), read)


def _read(path: Path, split: str, focus: np.ndarray, index: int) -> Example:
  with open_hdf5(path, HOMEPAGE) as file:
    images, all_in_focus = (
      to_uint8(read_array(file, key, index), f'{path}: {key}[{index}]') for key in (f'stack_{split}', f'AiF_{split}')
    )
    disparity = read_array(file, f'disp_{split}', index)
  valid = np.abs(disparity) <= EVALUATED_PX if split == 'val' else None
  return make_example(f'{split}_{index:05d}', images, focus, disparity, valid, all_in_focus=all_in_focus)


class Builder(StackBuilder):
  """TFDS builder of `hci4d`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'{FILE}, made by data/4D-Light-Field_Gen of {HOMEPAGE} from the light fields at '
    'https://lightfield-analysis.uni-konstanz.de/'
  )
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='The file written by the tools of AiFDepthNet.',
      find_splits=find_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
    ),
  ]
