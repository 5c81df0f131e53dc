"""FlyingThings3D_FS: synthetic focal stacks of rendered scenes, with disparity and an all-in-focus image.

Wang, Wang, Liu, Huang, Chang, Chen and Jou, "Bridging Unsupervised and Supervised Depth from Focus via All-in-Focus
Supervision" (AiFDepthNet), ICCV 2021. The authors publish it at https://github.com/albert100121/AiFDepthNet and state
no licence. They made it from FlyingThings3D (Mayer et al., "A Large Dataset to Train Convolutional Networks for
Disparity, Optical Flow, and Scene Flow Estimation", CVPR 2016), which is for research only, not for commercial use.

Every example holds 15 frames, far to near, focused at disparities evenly spaced from 10 to 100 px. They are computed
from one sharp image, which is `all_in_focus`, and so are aligned (`fov` is 1). The target is the disparity between
the two views of FlyingThings3D, in pixels, and `valid` is 1 where it is finite and above 0, else 0; it is not limited
to the range of the focus.

  split  examples  height x width  folder
  train      1000  540 x 960       FlyingThings3D_FS/train
  val         100  540 x 960       FlyingThings3D_FS/val

Methods train here and report results on Middlebury_FS (`middlebury_fs`), which has no scenes for training.
"""

from pathlib import Path

import tensorflow_datasets as tfds

from tfds_ddff.disparity_scenes import CITATION, HOMEPAGE, NUM_FRAMES, find_split, focus_planes
from tfds_ddff.stack_builder import Config, SourceSplit, StackBuilder

FOLDER = 'FlyingThings3D_FS'
FOCUS_PX = focus_planes(10, 100)


def official_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of the official files.

  Args:
    manual_dir: folder with `FlyingThings3D_FS/train` and `FlyingThings3D_FS/val`, each with one folder per scene.

  Raises:
    InputError: a folder is missing, or a scene is not laid out as described in `disparity_scenes`.
  """
  return {
    split: find_split(manual_dir / FOLDER / split, FOCUS_PX, lambda disparity: disparity > 0, prefix=f'{split}/')
    for split in ('train', 'val')
  }


class Builder(StackBuilder):
  """TFDS builder of `flyingthings_fs`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'not stated; FlyingThings3D, which it is made from, is for research only, not for commercial use'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{FOLDER}, unpacked, from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='All scenes, with every pixel of positive disparity.',
      find_splits=official_splits,
      num_frames=NUM_FRAMES,
      focus_unit='px',
    ),
  ]
