"""Smartphone: focal stacks of a phone camera, with depth from multi-view stereo and its confidence.

Herrmann, Bowen, Wadhwa, Garg, He, Barron and Zabih, "Learning to Autofocus", CVPR 2020. The authors publish it at
https://learntoautofocus-google.github.io, which states no licence.

Frames run far to near, from 3.91092 to 0.10201 m; focus and target are 1 / depth in 1/m, from 0.2557 to 9.803. The
field of view follows from the thin lens with f = 4.44 mm over the frames of the config, as in the published reader of
Won and Jeon ("Learning Depth from Focus in the Wild", ECCV 2022): `fov` falls to 1 at the nearest frame. The files are
called scaled images, so it is unknown how much of the breathing is left in them; the true motion is unknown too (NaN).
There is no all-in-focus image (`all_in_focus` is one black pixel).

Depth is stored as grey levels g: 1 / depth = (100 - 99.8 g / 255) / 20, which is at most 5 / m (0.2 m), so there is no
depth for the frames focused nearer. `valid` is the confidence, clipped to 0 .. 1 and 0 where NaN, if the target is
within the range of the focus, else 0.

  config      frames
  ten_frames      10  indices 0, 5, 11, 16, 21, 27, 32, 37, 43 and 48: the published protocol
  all_frames      49

  split  examples  height x width  folders
    train       355  504 x 378       train1 .. train7, those that exist
  test         47  504 x 378       test

Results are reported on the test split, in the central 336 x 252 pixels, as MAE and MSE weighted by the confidence.
Images are not cropped here. Scenes are sorted by folder and name.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError
from focal_jax.optics import relative_field_of_view
from tfds_ddff.files import check_same_size, common_size, exr_size, image_size, read_exr, read_image, subfolders
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

FOCUS_M = 1e-3 * np.array([
  3910.92, 2289.27, 1508.71, 1185.83, 935.91, 801.09, 700.37, 605.39, 546.23, 486.87, 447.99, 407.40, 379.91,
  350.41, 329.95, 307.54, 291.72, 274.13, 261.53, 247.35, 237.08, 225.41, 216.88, 207.10, 198.18, 191.60, 183.96,
  178.29, 171.69, 165.57, 160.99, 155.61, 150.59, 146.81, 142.35, 138.98, 134.99, 131.23, 127.69, 124.99, 121.77,
  118.73, 116.40, 113.63, 110.99, 108.47, 106.54, 104.23, 102.01,
])  # fmt: skip
FOCAL_LENGTH_M = 4.44e-3
FARTHEST, NEAREST = 1 / FOCUS_M[0], 1 / FOCUS_M[-1]  # 1/m

TRAIN_FOLDERS = tuple(f'train{number}' for number in range(1, 8))
TEST_FOLDER = 'test'
IMAGES, DEPTH, CONFIDENCE = 'scaled_images', 'merged_depth', 'merged_conf'
HOMEPAGE = 'https://learntoautofocus-google.github.io'

CITATION = """
@inproceedings{herrmann2020learning,
  title = {Learning to Autofocus},
  author = {Herrmann, Charles and Bowen, Richard Strong and Wadhwa, Neal and Garg, Rahul and He, Qiurui and
            Barron, Jonathan T. and Zabih, Ramin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2020},
}
"""


@dataclasses.dataclass(frozen=True)
class _Scene:
  name: str
  frames: list[Path]  # far to near
  depth: Path
  confidence: Path
  num_bytes: int


def official_splits(num_frames: int, manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of the official files.

  Args:
    num_frames: how many of the 49 frames, spread evenly by index.
    manual_dir: contains at least one of `train1` .. `train7` and, for the split `test`, `test`, each as published.

  Raises:
    InputError: there is no training folder, a scene lacks a file, or a file is not as described above.
  """
  train = [folder for name in TRAIN_FOLDERS if (folder := manual_dir / name).is_dir()]
  if not train:
    raise InputError(
      f'{manual_dir / TRAIN_FOLDERS[0]}: found no such folder, nor any up to {TRAIN_FOLDERS[-1]}, '
      f'expected at least one from {HOMEPAGE}'
    )
  indices = np.rint(np.linspace(0, len(FOCUS_M) - 1, num_frames)).astype(int)
  splits = {'train': _split(train, indices)}
  if (manual_dir / TEST_FOLDER).is_dir():
    splits['test'] = _split([manual_dir / TEST_FOLDER], indices)
  return splits


def _split(folders: list[Path], indices: np.ndarray) -> SourceSplit:
  scenes = [scene for folder in folders for scene in _find_scenes(folder, indices)]
  return SourceSplit(len(scenes), sum(scene.num_bytes for scene in scenes), functools.partial(_read, scenes, indices))


def _find_scenes(folder: Path, indices: np.ndarray) -> list[_Scene]:
  names = [path.name for path in subfolders(folder / IMAGES, HOMEPAGE)]
  for part in (DEPTH, CONFIDENCE):
    for path in subfolders(folder / part, HOMEPAGE):
      if path.name not in names:
        raise InputError(f'{path}: found a scene without images, expected {folder / IMAGES / path.name}')
  return [_check_scene(folder, name, indices) for name in names]


def _check_scene(folder: Path, name: str, indices: np.ndarray) -> _Scene:
  frames = [folder / IMAGES / name / str(index) / 'result_scaled_image_center.jpg' for index in indices]
  depth = folder / DEPTH / name / 'result_merged_depth_center.png'
  confidence = folder / CONFIDENCE / name / 'result_merged_conf_center.exr'
  size = common_size(frames, HOMEPAGE)
  check_same_size(depth, image_size(depth, HOMEPAGE, modes=('L', 'RGB')), size, frames[0])
  check_same_size(confidence, exr_size(confidence, HOMEPAGE), size, frames[0])
  return _Scene(f'{folder.name}/{name}', frames, depth, confidence, stack_bytes(len(frames), *size))


def _read(scenes: list[_Scene], indices: np.ndarray, index: int) -> Example:
  scene, focus_m = scenes[index], FOCUS_M[indices]
  target = (100 - 99.8 * _read_grey(scene.depth) / 255) / 20
  in_range = (target >= FARTHEST) & (target <= NEAREST)
  return make_example(
    scene.name,
    np.stack([read_image(path, HOMEPAGE) for path in scene.frames]),
    1 / focus_m,
    target,
    in_range * _read_confidence(scene.confidence),
    fov=relative_field_of_view(FOCAL_LENGTH_M, focus_m),
    aligned=False,
  )


def _read_grey(path: Path) -> np.ndarray:
  """[H, W] of a grey image, which may be stored as RGB."""
  image = read_image(path, HOMEPAGE)
  if image.ndim == 2:
    return image
  if (image != image[..., :1]).any():
    raise InputError(f'{path}: found different channels, expected grey')
  return image[..., 0]


def _read_confidence(path: Path) -> np.ndarray:
  """[H, W], 0 .. 1; 0 where NaN.

  The published reader uses the last of OpenCV's channels, which are blue, green and red.
  """
  channels = read_exr(path, HOMEPAGE)
  confidence = channels['R' if 'R' in channels else max(channels)]
  return np.clip(np.nan_to_num(confidence), 0, 1)


class Builder(StackBuilder):
  """TFDS builder of `smartphone`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = f'not stated; see {HOMEPAGE}'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'train1.tar.gz .. train7.tar.gz and test.tar.gz (90 to 100 GB each) from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name=name,
      description=description,
      find_splits=functools.partial(official_splits, num_frames),
      num_frames=num_frames,
      focus_unit='1/m',
      optional={'test': TEST_FOLDER},
    )
    for name, num_frames, description in (
      ('ten_frames', 10, 'Ten of the 49 frames, spread evenly by index: the published protocol.'),
      ('all_frames', len(FOCUS_M), 'All 49 frames.'),
    )
  ]
