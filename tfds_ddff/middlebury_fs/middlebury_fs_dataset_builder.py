"""Middlebury_FS: synthetic focal stacks of photographed scenes, with disparity and an all-in-focus image.

Wang, Wang, Liu, Huang, Chang, Chen and Jou, "Bridging Unsupervised and Supervised Depth from Focus via All-in-Focus
Supervision" (AiFDepthNet), ICCV 2021. The authors publish it at https://github.com/albert100121/AiFDepthNet and state
no licence. They made it from the Middlebury stereo data of 2014 (Scharstein et al., "High-Resolution Stereo Datasets
with Subpixel-Accurate Ground Truth", GCPR 2014, https://vision.middlebury.edu/stereo/data/).

Every example holds 15 frames, far to near, focused at disparities evenly spaced from 10 to 60 px. They are computed
from one sharp image, which is `all_in_focus`, and so are aligned (`fov` is 1). The target is the disparity between
the two views of the stereo pair, in pixels, and `valid` is 1 from 10 to 60 px, both included, else 0.

  split  examples  height x width          folder
  test         15  differs between scenes  Middlebury_FS

There is no training split: methods train on FlyingThings3D_FS (`flyingthings_fs`), and report MAE, MSE, RMS, AbsRel and
SqRel within 10 .. 60 px here.
"""

from pathlib import Path

import tensorflow_datasets as tfds

from tfds_ddff.disparity_scenes import CITATION, HOMEPAGE, NUM_FRAMES, find_split, focus_planes
from tfds_ddff.stack_builder import Config, SourceSplit, StackBuilder

FOLDER = 'Middlebury_FS'
SOURCE_HOMEPAGE = 'https://vision.middlebury.edu/stereo/data/'
FAR_PX, NEAR_PX = 10, 60
FOCUS_PX = focus_planes(FAR_PX, NEAR_PX)


def official_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The split of the official files.

  Args:
    manual_dir: folder with `Middlebury_FS`, which contains one folder per scene, directly or in its folder
      `focal_stack`.

  Raises:
    InputError: a folder is missing, or a scene is not laid out as described in `disparity_scenes`.
  """
  folder = manual_dir / FOLDER
  if (folder / 'focal_stack').is_dir():  # used by published readers
    folder /= 'focal_stack'
  return {
    'test': find_split(folder, FOCUS_PX, lambda disparity: (disparity >= FAR_PX) & (disparity <= NEAR_PX)),
  }


class Builder(StackBuilder):
  """TFDS builder of `middlebury_fs`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = f'not stated; for the Middlebury stereo data, which it is made from, see {SOURCE_HOMEPAGE}'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{FOLDER}, unpacked, from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='All scenes, within the range of the focus.',
      find_splits=official_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
    ),
  ]
