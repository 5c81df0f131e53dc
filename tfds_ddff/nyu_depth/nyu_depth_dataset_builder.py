"""NYU Depth v2, the labelled part: indoor images with depth, from which the simulator makes focal stacks.

Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012. The authors
publish it at https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html and state no licence.

  split  examples  height x width  file                        keys
  train      1449  480 x 640       nyu_depth_v2_labeled.mat    images, depths

Every example is a Kinect image with registered depth; its holes were filled by the authors. It has one frame, assumed
to be sharp everywhere, without a focus coordinate (`focus` is NaN, `fov` is 1); `all_in_focus` is one black pixel,
because it would only repeat the frame. The target is depth in metres, about 0.7 to 10, and `valid` is 1 where it is
finite and above 0, else 0. Examples keep the order of the file.

There is no protocol, because these are not focal stacks. The images have a white border: the published simulator crops
16 px on each side, and maps the depth of each image to 0.1 m .. 1.1 m.
"""

import functools
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tfds_ddff.files import check_array, open_hdf5, read_array
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

FILE = 'nyu_depth_v2_labeled.mat'
HOMEPAGE = 'https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html'

CITATION = """
@inproceedings{silberman2012indoor,
  title = {Indoor Segmentation and Support Inference from {RGBD} Images},
  author = {Silberman, Nathan and Hoiem, Derek and Kohli, Pushmeet and Fergus, Rob},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2012},
}
"""


def find_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The images of `nyu_depth_v2_labeled.mat`, which must be in `manual_dir`.

  Raises:
    InputError: the file is missing, damaged or not laid out as described above.
  """
  path = manual_dir / FILE
  with open_hdf5(path, HOMEPAGE) as file:
    shape = check_array(file, 'images', ('n', 3, 'w', 'h'), np.uint8)
    count, _, width, height = shape
    check_array(file, 'depths', (count, width, height), np.floating, why=f', because images is {shape}')
  return {'train': SourceSplit(count, count * stack_bytes(1, height, width), functools.partial(_read, path))}


def _read(path: Path, index: int) -> Example:
  with open_hdf5(path, HOMEPAGE) as file:
    # MATLAB is column-major, so the axes are reversed in HDF5.
    image, depth = read_array(file, 'images', index).T, read_array(file, 'depths', index).T
  return make_example(f'train_{index:05d}', image[None], np.array([np.nan]), depth, depth > 0)


class Builder(StackBuilder):
  """TFDS builder of `nyu_depth`. See the module for splits, units and purpose."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = 'not stated'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{FILE} (2.8 GB, "Labeled dataset") from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='labelled',
      description='All images of the labelled part, with filled depth.',
      find_splits=find_splits,
      num_frames=1,
      focus_unit='m',
    ),
  ]
