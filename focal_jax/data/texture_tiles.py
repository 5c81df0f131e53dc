"""Photographs as textures for the simulator, from a folder of images."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from focal_jax.data.rgbd import read_colour
from focal_jax.errors import InputError
from focal_jax.simulate.sensor import GAMMA
from focal_jax.simulate.textures import Textures

TILE_PX = 512
SIDES_PX = (256, 512, 1024)  # images are reduced to these shorter sides
TILES_A_SIDE = 2
MAX_TILES = 256  # 200 MB
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm')


def open_textures(field: str, name: str, share: float) -> Textures | None:
  """Tiles of all images in a folder, deterministic; None without a name or share.

  Args:
    field: name of the config field, for messages.
    name: 'folder:DIR', searched recursively for images; or ''.
    share: share of surfaces that show a photograph.

  Raises:
    InputError: there is no such folder, it has no images, or a file cannot be read.
  """
  if not 0 <= share <= 1:
    raise InputError(f'data.textures_share is {share}, expected a number from 0 to 1')
  if not name:
    return None
  paths = find_images(field, name)
  if not share:
    return None
  rng = np.random.default_rng(0)  # deterministic tiles
  if len(paths) > MAX_TILES:
    paths = [paths[i] for i in np.sort(rng.choice(len(paths), MAX_TILES, replace=False))]
  # At least one tile per image, the others at random.
  first, *rest = zip(*[_tiles(read_colour(path), rng) for path in paths], strict=True)
  rest = [tile for tiles in rest for tile in tiles if tile is not None]
  rest = [rest[i] for i in rng.permutation(len(rest))[: MAX_TILES - len(first)]]
  # Display values to the square root of light.
  table = np.round(255 * (np.arange(256) / 255) ** (GAMMA / 2)).astype(np.uint8)
  return Textures(tiles=table[np.stack([*first, *rest]).transpose(0, 3, 1, 2)], share=np.array(share, np.float32))


def find_images(field: str, name: str) -> list[Path]:
  """The images in a folder and its subfolders, sorted; hidden ones are ignored.

  Args:
    field: name of the config field or flag, for messages.
    name: 'folder:DIR'.

  Raises:
    InputError: there is no such folder, or it has no images.
  """
  if not name.startswith('folder:'):
    raise InputError(f"{field} is '{name}', expected folder:DIR with a folder of pictures")
  folder = Path(name.removeprefix('folder:')).expanduser()
  if not folder.is_dir():
    raise InputError(f'{folder}: found no such folder, expected one with images ({field})')
  found = [path.relative_to(folder) for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES]
  paths = [folder / path for path in sorted(found) if not any(part.startswith('.') for part in path.parts)]
  if not paths:
    raise InputError(f'{folder}: found no pictures, expected files with one of the endings {" ".join(SUFFIXES)}')
  return paths


def _tiles(picture: UInt8[np.ndarray, 'H W 3'], rng: np.random.Generator) -> list[np.ndarray | None]:
  """Tiles of an image at each reduction, or None at reductions for which it is too small.

  An image smaller than a tile is extended by mirroring. Tiles are those with the most detail of a few random positions.
  """
  shorter, tiles = min(picture.shape[:2]), []
  for side_px in SIDES_PX:
    scale = min(side_px / shorter, 1.0)
    size = [max(round(scale * length), 1) for length in picture.shape[1::-1]]
    image = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    image = np.pad(image, [(0, max(0, TILE_PX - length)) for length in image.shape[:2]] + [(0, 0)], 'symmetric')
    places = rng.uniform(size=(4 * TILES_A_SIDE, 2)) * (np.array(image.shape[:2]) - TILE_PX + 1)
    cuts = [image[top : top + TILE_PX, left : left + TILE_PX] for top, left in places.astype(int)]
    cuts = sorted(cuts, key=_detail, reverse=True)[:TILES_A_SIDE]
    if max(image.shape[:2]) < 1.25 * TILE_PX:  # they would hardly differ
      cuts = [cuts[0], *[None] * (TILES_A_SIDE - 1)]
    is_there = not tiles or shorter >= side_px
    tiles += cuts if is_there else [None] * TILES_A_SIDE
  return tiles


def _detail(tile: UInt8[np.ndarray, 'H W 3']) -> float:
  grey = tile[::2, ::2].astype(np.float32).mean(-1)
  return sum(float(np.abs(np.diff(grey, axis=axis)).mean()) for axis in (0, 1))
