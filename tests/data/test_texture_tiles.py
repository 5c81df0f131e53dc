"""Folders of pictures become tiles."""

import numpy as np
import pytest
from PIL import Image

from focal_jax.data import texture_tiles as textures
from focal_jax.data.texture_tiles import TILE_PX, open_textures
from focal_jax.errors import InputError


def save(path, height, width, seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8))
  image = coarse.resize((width, height), Image.Resampling.BICUBIC)
  image.save(path)
  return np.asarray(image)


def display(tile):
  return (tile.transpose(1, 2, 0) / 255.0) ** (1 / 1.1) * 255


def test_a_small_picture_is_repeated_as_its_mirror_image(tmp_path):
  picture = save(tmp_path / 'a.png', 200, 512)
  found = open_textures('data.textures', f'folder:{tmp_path}', 0.25)
  assert found.tiles.shape == (1, 3, TILE_PX, TILE_PX)
  assert found.share == np.float32(0.25)
  tile = display(found.tiles[0])
  np.testing.assert_allclose(tile[:200], picture, atol=3)
  np.testing.assert_allclose(tile[200:400], picture[::-1], atol=3)


def test_larger_pictures_give_tiles_at_several_reductions(tmp_path):
  picture = save(tmp_path / 'deep' / 'in' / 'a.JPG', 1024, 1536)
  found = open_textures('data.textures', f'folder:{tmp_path}', 0.5)
  assert len(found.tiles) == 5  # one of the smallest, which is hardly wider than a tile, and two of the others
  small = np.asarray(Image.fromarray(picture).resize((768, 512), Image.Resampling.LANCZOS), np.float32)
  halves, wholes = 0, 0
  for tile in map(display, found.tiles):
    halves += any(np.abs(tile - small[:, x : x + TILE_PX]).mean() < 6 for x in range(257))
    wholes += np.abs(tile[:256, :384] - np.asarray(Image.fromarray(picture).resize((384, 256)))).mean() < 6
  assert (halves, wholes) == (2, 1)


def test_a_folder_always_gives_the_same_tiles_and_not_too_many(tmp_path, monkeypatch):
  monkeypatch.setattr(textures, 'MAX_TILES', 4)
  for n in range(3):
    save(tmp_path / f'{n}.png', 600, 1000, n)
  first, second = (open_textures('data.textures', f'folder:{tmp_path}', 0.5) for _ in range(2))
  assert len(first.tiles) == 4
  np.testing.assert_array_equal(first.tiles, second.tiles)
  monkeypatch.setattr(textures, 'MAX_TILES', 2)
  assert len(open_textures('data.textures', f'folder:{tmp_path}', 0.5).tiles) == 2


def test_grey_and_transparent_pictures(tmp_path):
  Image.fromarray(np.full((64, 64), 100, np.uint8)).save(tmp_path / 'grey.png')
  Image.fromarray(np.full((64, 64, 4), 100, np.uint8)).save(tmp_path / 'transparent.png')
  np.testing.assert_allclose(open_textures('x', f'folder:{tmp_path}', 0.5).tiles, 255 * (100 / 255) ** 1.1, atol=0.5)


def test_bad_folders_and_files_are_named(tmp_path):
  with pytest.raises(InputError, match=r"^validation_textures is 'here', expected folder:DIR"):
    open_textures('validation_textures', 'here', 0.5)
  with pytest.raises(InputError, match=rf'^{tmp_path}/none: found no such folder'):
    open_textures('data.textures', f'folder:{tmp_path}/none', 0.5)
  (tmp_path / 'notes.txt').write_text('no picture')
  save(tmp_path / '.hidden' / 'a.png', 64, 64)
  with pytest.raises(InputError, match=rf'^{tmp_path}: found no pictures, expected .*\.png'):
    open_textures('data.textures', f'folder:{tmp_path}', 0.5)
  (tmp_path / 'broken.jpg').write_text('no picture')
  with pytest.raises(InputError, match=r'broken\.jpg: cannot be read'):
    open_textures('data.textures', f'folder:{tmp_path}', 0.5)
  Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / 'broken.jpg', 'png')
  with pytest.raises(InputError, match=r'broken\.jpg: has pixels of kind I.*, expected colour of 8 bits'):
    open_textures('data.textures', f'folder:{tmp_path}', 0.5)
  assert open_textures('data.textures', '', 0.5) is None
