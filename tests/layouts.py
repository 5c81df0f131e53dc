"""Small files of random pixels in the official layouts of data sets, with unknown and extreme depths among the known.

Sizes are (height, width), at least (6, 8) where depths are placed by column; by default they differ between scenes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import OpenEXR
from PIL import Image

SIZES = ((6, 8), (7, 5), (6, 8))  # of the scenes, in turn

DDFF12_TRAINVAL = 'ddff-dataset-trainval.h5'
HCI4D_FILE = 'HCI_FS_trainval.h5'
HCI4D_FOCUS = np.linspace(-2.5, 2.5, 10, dtype=np.float32)[None]
FLYING_PLANES = [10 + 90 * n / 14 for n in range(15)]
MIDDLEBURY_PLANES = [10 + 50 * n / 14 for n in range(15)]
PHONE_TEN = (0, 5, 11, 16, 21, 27, 32, 37, 43, 48)
PHONE_FRAME = 'scaled_images/{scene}/{index}/result_scaled_image_center.jpg'
PHONE_DEPTH = 'merged_depth/{scene}/result_merged_depth_center.png'
PHONE_CONFIDENCE = 'merged_conf/{scene}/result_merged_conf_center.exr'

Size = tuple[int, int]


def write_image(path: Path, pixels: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def write_exr(path: Path, **channels: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  header = {'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage}
  OpenEXR.File(header, channels).write(str(path))


def write_ddff12(folder: Path, counts: Mapping[str, int], size: Size = (6, 8)) -> None:
  """The file of train and val; `counts` of both."""
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True, exist_ok=True)
  with h5py.File(folder / DDFF12_TRAINVAL, 'w') as file:
    for split, count in counts.items():
      stack = rng.integers(0, 256, (count, 10, *size, 3), np.uint8)
      disparity = rng.uniform(-0.1, 0.3, (count, *size)).clip(0)
      disparity[0, 0, :4] = [np.nan, np.inf, -1.0, 0.5]  # only the last is a depth
      file.create_dataset(f'stack_{split}', data=stack, chunks=(1, *stack.shape[1:]), compression='gzip')
      file[f'disp_{split}'] = disparity


def write_hci4d(folder: Path, counts: Mapping[str, int], size: Size = (6, 8)) -> None:
  """As the tools of AiFDepthNet write it: all is float32, grey levels are 0 .. 255; `counts` of train and val."""
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True, exist_ok=True)
  with h5py.File(folder / HCI4D_FILE, 'w') as file:
    file['focus_position_disp'] = HCI4D_FOCUS
    for split, count in counts.items():
      stack = rng.integers(0, 256, (count, 10, *size, 3))
      disparity = rng.uniform(-4, 4, (count, *size))
      disparity[0, 0, :8] = [-2.5, 2.5, 0, np.nan, np.inf, -2.5001, 2.5001, -np.inf]
      file.create_dataset(f'stack_{split}', data=stack, dtype=np.float32, chunks=True)
      file.create_dataset(f'disp_{split}', data=disparity, dtype=np.float32, chunks=True)
      # The tools divide the central view by 255 and multiply it again, which is not exact.
      all_in_focus = rng.integers(0, 256, (count, *size, 3)) / 255 * 255
      file.create_dataset(f'AiF_{split}', data=all_in_focus, dtype=np.float32, chunks=True)


def write_fod500(folder: Path, sizes: Sequence[Size] = SIZES) -> None:
  """Six scenes, so four are for training."""
  rng = np.random.default_rng(0)
  for scene, size in enumerate(2 * tuple(sizes)):
    for frame in range(5):
      write_image(folder / f'fs_6/{scene:06d}_{frame:02d}All.tif', rng.integers(0, 256, (*size, 3), np.uint8))
    depth = rng.uniform(-0.2, 2.4, size).astype(np.float16)
    depth[0, :4] = [math.nan, math.inf, 0, 0.1]  # the last is 0.09998 as a half float
    depth[1, :4] = [0.1001, 1.5, 2, 2.002]
    write_exr(folder / f'fs_6/{scene:06d}Dpt.exr', R=depth, G=depth + 1, B=depth + 2)


def write_disparity_scene(folder: Path, size: Size, planes: list[float], names: list[str]) -> None:
  """The far plane is dark and the near one is bright."""
  rng = np.random.default_rng(len(folder.name))
  for n, name in enumerate(names):
    write_image(folder / f'{name}.png', rng.integers(16 * n, 16 * n + 16, (*size, 3), np.uint8))
  write_image(folder / 'AiF.png', rng.integers(0, 256, (*size, 3), np.uint8))
  disparity = rng.uniform(-20, planes[-1] + 20, size).astype(np.float32)
  disparity[0, :5] = [math.nan, math.inf, -math.inf, 0, 1e-3]
  disparity[1, :5] = [10, 9.99, planes[-1], planes[-1] + 0.01, -10]
  write_exr(folder / 'disp.exr', Y=disparity)


def write_flyingthings_fs(folder: Path, sizes: Sequence[Size] = SIZES) -> None:
  """Two scenes for training, one for validation."""
  names = [f'{plane:.1f}' for plane in FLYING_PLANES]  # 10.0, 16.4 .. 100.0, which is before 16.4 if sorted as text
  for place, size in zip(('train/0007', 'train/0003', 'val/0001'), sizes, strict=True):
    write_disparity_scene(folder / 'FlyingThings3D_FS' / place, size, FLYING_PLANES, names)
  (folder / 'FlyingThings3D_FS/train/focal_stack_path.txt').write_text('paths')


def write_middlebury_fs(folder: Path) -> None:
  names = [str(plane) for plane in MIDDLEBURY_PLANES]
  for scene, size in zip(('Piano', 'Jadeplant', 'ArtL'), SIZES, strict=True):
    write_disparity_scene(folder / 'Middlebury_FS' / scene, size, MIDDLEBURY_PLANES, names)


def write_smartphone(folder: Path, indices: Iterable[int] = PHONE_TEN, sizes: Sequence[Size] = SIZES) -> None:
  """Three scenes for training, one for the test; depth as grey and as RGB, confidence in one channel or in three."""
  rng = np.random.default_rng(0)
  scenes = (('train1', 'b'), ('train1', 'a'), ('train3', 'c'), ('test', 'd'))
  for (place, scene), size in zip(scenes, (*sizes, sizes[0]), strict=True):
    for index in indices:
      pixels = rng.integers(0, 256, (*size, 3), np.uint8)
      write_image(folder / place / PHONE_FRAME.format(scene=scene, index=index), pixels)
    grey = rng.integers(0, 256, size, np.uint8)
    grey[0, :4] = [0, 242, 243, 255]  # beyond 242 it is farther than 3.91 m
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    write_image(folder / place / PHONE_DEPTH.format(scene=scene), rgb if scene == 'b' else grey)
    confidence = rng.uniform(-0.2, 1.2, size).astype(np.float32)
    confidence[0, :2] = 0.5
    confidence[1, :3] = [math.nan, math.inf, -math.inf]
    other = np.ones(size, np.float32)
    channels = {'V': confidence} if scene == 'c' else {'R': confidence, 'G': other, 'Y': other}
    write_exr(folder / place / PHONE_CONFIDENCE.format(scene=scene), **channels)
