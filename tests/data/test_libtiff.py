"""Messages of libtiff become one note with the name of the file, and do not reach the terminal."""

import os

import numpy as np
import pytest
from PIL import Image

from focal_jax.data import libtiff
from focal_jax.data.folder import read_stack_folder


def write(folder, compression, spoilt):
  for n in range(4):
    y, x = np.mgrid[:96, :128]
    waves = 128 + 90 * np.sin((x + 3 * n) / 7) * np.cos(y / 5)
    path = folder / f'{n}.tif'
    Image.fromarray(np.stack([waves.astype(np.uint8)] * 3, -1)).save(path, compression=compression)
    if n == 2:
      data = bytearray(path.read_bytes())
      for at, value in spoilt:
        data[int(at * len(data))] = value
      path.write_bytes(data)


def test_damage_is_the_reason(tmp_path, capfd):
  write(tmp_path, 'tiff_adobe_deflate', [(0.5, 255), (0.51, 1), (0.52, 77)])
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['0.tif', '1.tif', '3.tif']
  (note,) = [note for note in stack.notes if 'Left out: 2.tif' in note]
  assert 'it is damaged: ' in note
  assert capfd.readouterr().err == ''


def test_damage_that_is_decoded_is_noted(tmp_path, capfd):
  for n in range(4):
    rng = np.random.default_rng(n)
    Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(tmp_path / f'{n}.tif', compression='jpeg')
  data = bytearray((tmp_path / '2.tif').read_bytes())
  middle = len(data) // 2
  data[middle : middle + 2] = b'\xff\x1c'  # no marker of JPEG
  (tmp_path / '2.tif').write_bytes(data)
  stack = read_stack_folder(tmp_path)
  assert [note for note in stack.notes if note.startswith('2.tif is damaged (')]
  assert not [note for note in stack.notes if '1.tif' in note]
  assert capfd.readouterr().err == ''


def test_missing_pages_are_no_damage_of_the_others(tmp_path, capfd):
  pages = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (48, 64), dtype=np.uint8)) for n in range(6)]
  path = tmp_path / 'z.tif'
  pages[0].save(path, save_all=True, append_images=pages[1:], compression='tiff_adobe_deflate')
  data = path.read_bytes()
  for content in (data[: len(data) * 3 // 4], data[: len(data) * 3 // 4] + bytes(len(data) // 4)):
    path.write_bytes(content)
    stack = read_stack_folder(path)
    assert 'z.tif is truncated: 4 of its pages were read.' in stack.notes
    assert not any('is damaged' in note for note in stack.notes)
  assert capfd.readouterr().err == ''


def test_what_others_write_is_passed_on(capfd):
  with libtiff.messages() as said:
    os.write(2, b'Fax4Decode: Warning, of no weight.\nZIPDecode: an error.\nZIPDecode: an error.\n')
    os.write(2, b'ZIPDecode: tif_zip.c:9: tempfile.tif: an error.\nI1130 a line of a log\n')
  assert said == ['an error.']
  assert capfd.readouterr().err == 'I1130 a line of a log\n'
  with pytest.raises(ZeroDivisionError), libtiff.messages():
    raise ZeroDivisionError
  os.write(2, b'afterwards\n')
  assert capfd.readouterr().err == 'afterwards\n'
