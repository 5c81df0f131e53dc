"""The list of free photographs, and their extraction from packages. Nothing is downloaded."""

import base64
import bz2
import hashlib
import subprocess

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from focal_jax.errors import InputError, RunError
from tfds_ddff import textures

FREE = {'CC0 1.0', 'public domain', 'CC BY 2.0', 'CC BY 4.0', 'BSD 3-Clause'}


def test_the_list_names_free_pictures_and_whose_they_are():
  rows = textures.read_list()
  assert {row['licence'] for row in rows} <= FREE
  assert {row['split'] for row in rows} == set(textures.SPLITS)
  assert all(row['author'] and len(row['sha256']) == 64 for row in rows)
  for column in ('file', 'sha256'):
    assert len({row[column] for row in rows}) == len(rows)
  assert {row['package'].partition(':')[0] for row in rows} == {'deb', 'pypi', 'npm'}


def listed(path, folder, data):
  (folder / path).write_bytes(data)
  return {
    'file': f'{path.partition(".")[0]}.png',
    'split': 'val',
    'package': 'npm:a@1',
    'path': path,
    'sha256': hashlib.sha256(data).hexdigest(),
  }


def test_pictures_as_packages_have_them(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  textures.extract(listed('plain.png', tmp_path, b'as it is'), tmp_path, out)
  assert (out / 'val' / 'plain.png').read_bytes() == b'as it is'

  raccoon = np.random.default_rng(0).integers(0, 256, textures.RACCOON_SHAPE, np.uint8)
  textures.extract(listed('raw.dat', tmp_path, bz2.compress(raccoon.tobytes(), 1)), tmp_path, out)
  np.testing.assert_array_equal(np.asarray(Image.open(out / 'val' / 'raw.png')), raccoon)

  light = np.full((4, 10, 3), 2.0, np.float32)
  light[0, 0] = 0.5
  light[1, 1, 0] = np.nan
  OpenEXR.File({'type': OpenEXR.scanlineimage}, {'RGB': light}).write(str(tmp_path / 'a.exr'))
  text = b"export default 'data:application/exr;base64," + base64.b64encode((tmp_path / 'a.exr').read_bytes()) + b"'"
  textures.extract(listed('panorama.exr.js', tmp_path, text), tmp_path, out)
  picture = np.asarray(Image.open(out / 'val' / 'panorama.png'))
  assert (picture[3] == round(255 * 0.8 ** (1 / 2.2))).all()
  assert (picture[0, 0] == round(255 * 0.2 ** (1 / 2.2))).all()
  assert (picture[1, 1] == 255).all()


def test_another_picture_than_the_lists_is_refused(tmp_path):
  row = listed('plain.png', tmp_path, b'as it is')
  (tmp_path / 'plain.png').write_bytes(b'another')
  with pytest.raises(InputError, match=r'npm:a@1: plain\.png has SHA-256 .*, expected'):
    textures.extract(row, tmp_path, tmp_path)
  (tmp_path / 'plain.png').unlink()
  with pytest.raises(InputError, match=r'npm:a@1: found no plain\.png'):
    textures.extract(row, tmp_path, tmp_path)


def test_packages_that_cannot_be_downloaded(tmp_path, monkeypatch):
  def fail(command, **_):
    if command[0] == 'npm':
      raise FileNotFoundError(command[0])
    raise subprocess.CalledProcessError(1, command, '', 'first\nno such package')

  monkeypatch.setattr(subprocess, 'run', fail)
  with pytest.raises(RunError, match='npm:a@1: found no program npm'):
    textures.fetch('npm:a@1', tmp_path / 'npm')
  with pytest.raises(RunError, match=r'deb:a: cannot be downloaded with apt-get \(no such package\)'):
    textures.fetch('deb:a', tmp_path / 'deb')
  with pytest.raises(RunError):
    textures.collect(tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
