"""Pages of TIFF files that Pillow does not decode, and the range of their values."""

import struct

import numpy as np
import pytest
from PIL import Image
from tiff_files import write_tiff

from focal_jax.data import tiff
from focal_jax.data.folder import read_stack_folder
from focal_jax.errors import InputError

RNG = np.random.default_rng(0)
RAMP = np.linspace(0, 1, 7 * 9).reshape(7, 9)


def values(dtype, shape=(7, 9, 3)):
  """Random bit patterns of finite numbers."""
  if np.dtype(dtype).kind == 'f':
    return RNG.standard_normal(shape).astype(dtype)
  return RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize('dtype', ['u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f2', 'f4', 'f8'])
@pytest.mark.parametrize(
  'layout',
  [
    {},
    {'order': '>'},
    {'big': True, 'rows': 2},
    {'order': '>', 'big': True, 'planar': True},
    {'planar': True, 'rows': 3, 'compressed': True},
    {'tile': (4, 4), 'compressed': True, 'predictor': 2},
    {'order': '>', 'rows': 3, 'predictor': 2},
    {'order': '>', 'tile': (4, 4), 'planar': True, 'compressed': True, 'predictor': 2},
  ],
)
def test_values_are_those_written(tmp_path, dtype, layout):
  for channels in (1, 2, 3, 4):
    written = values(dtype, (7, 9, channels))
    write_tiff(tmp_path / 'a.tif', written, **layout)
    (page,) = tiff.read_pages(tmp_path / 'a.tif')
    read = tiff.read_pixels(tmp_path / 'a.tif', page)
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize('bits', range(9, 16))
@pytest.mark.parametrize(
  'layout', [{}, {'order': '>', 'rows': 2}, {'tile': (4, 4), 'compressed': True}, {'planar': True, 'big': True}]
)
def test_packed_values(tmp_path, bits, layout):
  for channels in (1, 3):
    written = RNG.integers(0, 2**bits, (7, 9, channels), np.uint16)
    write_tiff(tmp_path / 'a.tif', written, bits=bits, **layout)
    (page,) = tiff.read_pages(tmp_path / 'a.tif')
    np.testing.assert_array_equal(tiff.read_pixels(tmp_path / 'a.tif', page), written)


def test_packed_frames(tmp_path):
  frames = RNG.integers(0, 4096, (2, 7, 9, 3), np.uint16)
  frames[0, 0, 0] = 4095
  stack = write_stack(tmp_path, *frames, bits=12)
  np.testing.assert_array_equal(stack.images, np.round(frames * (255 / 4095)))


def test_raw_mosaics_and_compressions_that_are_not_read_are_noted(tmp_path):
  write_tiff(tmp_path / 'a.tif', values('u2', (7, 9, 1)))
  whole = (tmp_path / 'a.tif').read_bytes()
  tag = struct.pack('<HHI', 262, 4, 1)
  for value, message in ((32803, 'raw sensor data: develop it'), (2**20, 'photometric interpretation')):
    for name in 'ab':
      (tmp_path / f'{name}.tif').write_bytes(whole.replace(tag + bytes([1, 0, 0, 0]), tag + struct.pack('<I', value)))
    with pytest.raises(InputError, match=f'a.tif: cannot be read as an image .*{message}'):
      read_stack_folder(tmp_path)
  tag = struct.pack('<HHI', 259, 4, 1)
  for name in 'ab':
    (tmp_path / f'{name}.tif').write_bytes(whole.replace(tag + bytes([1, 0, 0, 0]), tag + struct.pack('<I', 34712)))
  with pytest.raises(InputError, match=r'compression 34712 \(JPEG 2000\) of 16-bit values'):
    read_stack_folder(tmp_path)


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8'])
@pytest.mark.parametrize('layout', [{}, {'order': '>', 'rows': 2}, {'tile': (4, 4)}, {'planar': True}])
def test_predictor_of_floating_point(tmp_path, dtype, layout):
  written = values(dtype)
  write_tiff(tmp_path / 'a.tif', written, predictor=3, compressed=True, **layout)
  (page,) = tiff.read_pages(tmp_path / 'a.tif')
  np.testing.assert_array_equal(tiff.read_pixels(tmp_path / 'a.tif', page), written)


@pytest.mark.parametrize('compression', ['tiff_lzw', 'packbits', 'tiff_deflate', 'zstd', 'lzma'])
def test_compressions_of_libtiff(tmp_path, compression):
  """As Pillow writes them."""
  written = np.tile(values('f4', (40, 5)), 9)
  Image.fromarray(written).save(tmp_path / 'a.tif', compression=compression)
  (page,) = tiff.read_pages(tmp_path / 'a.tif')
  assert page.get(tiff.COMPRESSION) > 1
  np.testing.assert_array_equal(tiff.read_pixels(tmp_path / 'a.tif', page)[..., 0], written)


def write_stack(folder, *frames, **options):
  for n, frame in enumerate(frames):
    write_tiff(folder / f'{n}.tif', frame if frame.ndim == 3 else frame[..., None], **options)
  return read_stack_folder(folder)


def range_notes(stack):
  return [note for note in stack.notes if 'taken as' in note and 'No focus' not in note]


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_floating_point_from_0_to_1(tmp_path, dtype, channels):
  frames = RNG.random((2, 7, 9, channels)).astype(dtype)
  stack = write_stack(tmp_path, *frames)
  expected = frames[..., : 3 if channels > 2 else 1].astype(np.float64) * 255
  np.testing.assert_allclose(stack.images, np.broadcast_to(expected, stack.images.shape), atol=0.5001)
  assert range_notes(stack) == []
  assert ('Transparency was ignored.' in stack.notes) == (channels in (2, 4))


@pytest.mark.parametrize(
  ('dtype', 'low', 'high', 'black', 'white'),
  [
    ('f4', 0, 250, 0, 255),
    ('f4', 0, 3000, 0, 4095),
    ('f4', 0, 60000, 0, 65535),
    ('f4', 0, 0.01, 0, 0.01),
    ('f4', 0, 7e5, 0, 7e5),
    ('f4', -3, 5, -3, 5),
    ('f4', -3, -1, -3, -1),
    ('i2', -3000, 20000, -3000, 65535),
    ('i2', 0, 4000, 0, 4095),
    ('u4', 0, 4_000_000_000, 0, 4e9),
    ('i4', 0, 900, 0, 1023),
  ],
)
def test_values_of_any_range_are_scaled(tmp_path, dtype, low, high, black, white):
  """By one range for all frames."""
  frame = low + np.linspace(0, 1, 80 * 80).reshape(80, 80) * (high - low)
  stack = write_stack(tmp_path, frame.astype(dtype), (frame / 2 + low / 2).astype(dtype))
  expected = [(one - black) / (white - black) * 255 for one in (frame, frame / 2 + low / 2)]
  np.testing.assert_allclose(stack.images[..., 1], np.clip(expected, 0, 255), atol=1)
  (note,) = range_notes(stack)
  assert note.startswith('Pixels range from ')


def test_reflections_do_not_set_the_range(tmp_path):
  """A render or merged exposures: 0.5 % of the pixels are up to 40 times white."""
  frame = np.tile(RAMP, (12, 12)).astype(np.float32)
  frame = frame / frame.max()
  bright = frame.copy()
  bright.flat[::200] = 40
  stack = write_stack(tmp_path, bright, bright)
  np.testing.assert_allclose(stack.images[0, ..., 0], np.clip(bright, 0, 1) * 255, atol=1)
  # Counts of photons, of which most are 0, are no photograph.
  sparse = np.zeros_like(frame)
  sparse.flat[::200] = 40
  assert any('255 as white' in note for note in write_stack(tmp_path, sparse, sparse).notes)


def test_hot_pixels_and_overshoot_do_not_set_the_range(tmp_path):
  frame = np.tile(RAMP, (12, 12)).astype(np.float32)
  odd = frame.copy()
  odd[3, 3], odd[40, 50] = 1e6, -2.5
  stack = write_stack(tmp_path, frame, odd)
  expected = np.round(np.clip([frame, odd], 0, 1) * 255)
  np.testing.assert_allclose(stack.images[..., 0], expected, atol=1)
  assert range_notes(stack) == ['Pixels range from -2.5 to 1e+06: 0 was taken as black and 1 as white.']


@pytest.mark.parametrize('channels', [1, 3])
def test_pixels_that_are_no_numbers(tmp_path, channels):
  frame = np.tile(RAMP.astype(np.float32)[..., None], (12, 12, channels))
  odd = frame.copy()
  odd[2:4, 5:8], odd[6, 6], odd[7, 7] = np.nan, np.inf, -np.inf
  stack = write_stack(tmp_path, frame, odd)
  expected = np.nan_to_num(odd, nan=0, posinf=1, neginf=0) * 255
  np.testing.assert_allclose(stack.images[1], np.broadcast_to(expected, stack.images.shape[1:]), atol=0.51)
  assert f'{8 * channels} values of 1.tif are NaN or infinite: NaN was taken as black.' in stack.notes


def test_a_frame_without_any_number_is_refused(tmp_path):
  with pytest.raises(InputError, match=r'1\.tif: all its pixels are NaN or infinite, expected numbers'):
    write_stack(tmp_path, RAMP.astype(np.float32), np.full((7, 9), np.nan, np.float32))


@pytest.mark.parametrize('value', [0, 3, -2])
def test_frames_of_one_value(tmp_path, value):
  stack = write_stack(tmp_path, *[np.full((7, 9), value, np.float32)] * 2)
  assert len(np.unique(stack.images)) == 1


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(tmp_path, orientation):
  """Turned as Pillow turns 8 bits."""
  pixels = RNG.integers(0, 256, (4, 6, 1), np.uint8)
  turned = {}
  for name, dtype in (('bytes', np.uint8), ('floats', np.float32)):
    (tmp_path / name).mkdir()
    turned[name] = write_stack(tmp_path / name, *[pixels.astype(dtype)] * 2, orientation=orientation).images
  np.testing.assert_array_equal(turned['floats'], turned['bytes'])


def test_16_bit_planes(tmp_path):
  frames = values('u2', (2, 7, 9, 3))
  frames[0, 0, 0] = 65535
  np.testing.assert_allclose(write_stack(tmp_path, *frames, planar=True).images, frames / 257, atol=0.501)


def test_pages_that_imagej_writes_without_tags(tmp_path):
  pages = RNG.random((5, 7, 9, 1)).astype(np.float32)
  description = 'ImageJ=1.53t\nimages=5\nslices=5\nunit=micron\nspacing=2.0\n'
  write_tiff(tmp_path / 'z.tif', pages[0], description=description)
  data = bytearray((tmp_path / 'z.tif').read_bytes())
  start = data.index(pages[0].tobytes())
  # Further pages follow the first; its tags are at the end.
  end = start + pages[0].nbytes
  more = pages[1:].tobytes()
  moved = bytes(data[:end]) + more + bytes(data[end:])
  path = tmp_path / 'z.tif'
  path.write_bytes(_with_later_tags(moved, len(more)))
  stack = read_stack_folder(path)
  np.testing.assert_allclose(stack.images[..., 0], pages[..., 0] * 255, atol=0.501)
  np.testing.assert_array_equal(stack.focus, [0, 2, 4, 6, 8])
  assert stack.focus_unit == 'um'


def _with_later_tags(data, by):
  """A little-endian TIFF whose tags lie `by` bytes farther behind than it says."""
  begin = int.from_bytes(data[4:8], 'little') + by
  count = int.from_bytes(data[begin : begin + 2], 'little')
  out = bytearray(data)
  out[4:8] = begin.to_bytes(4, 'little')
  for n in range(count):
    entry = begin + 2 + 12 * n
    kind, length = (int.from_bytes(data[entry + a : entry + b], 'little') for a, b in ((2, 4), (4, 8)))
    if length * (1 if kind == 2 else 4) > 4:
      value = int.from_bytes(data[entry + 8 : entry + 12], 'little') + by
      out[entry + 8 : entry + 12] = value.to_bytes(4, 'little')
  return bytes(out)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('options', [{}, {'compressed': True, 'predictor': 3}, {'tile': (4, 4), 'big': True}])
def test_truncated(tmp_path, share, options):
  for name in 'ab':
    write_tiff(tmp_path / f'{name}.tif', values('f4'), **options)
  path = tmp_path / 'b.tif'
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  with pytest.raises(InputError, match=r'b\.tif: cannot be read as an image') as caught:
    read_stack_folder(tmp_path)
  assert '\n' not in str(caught.value)


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
  write_tiff(tmp_path / 'a.tif', values('f4'), compressed=True, predictor=3, rows=2)
  write_tiff(tmp_path / 'good.tif', values('f4'), compressed=True, predictor=3, rows=2)
  good = (tmp_path / 'good.tif').read_bytes()
  (tmp_path / 'good.tif').unlink()
  rng, messages = np.random.default_rng(0), []
  for _ in range(30):
    damaged = bytearray(good)
    for place in rng.integers(0, len(good), 3):
      damaged[place] = rng.integers(256)
    (tmp_path / 'b.tif').write_bytes(damaged)
    try:
      read_stack_folder(tmp_path)
    except InputError as error:
      messages.append(str(error))
  assert len(messages) > 5
  assert not any('\n' in message for message in messages)


def test_layouts_that_are_not_read_are_named(tmp_path):
  for name in 'ab':
    write_tiff(tmp_path / f'{name}.tif', values('f4'))
  path = tmp_path / 'a.tif'
  data = bytearray(path.read_bytes())
  entry = data.rindex((339).to_bytes(2, 'little') + (4).to_bytes(2, 'little'))
  data[entry + 4 : entry + 12] = (1).to_bytes(4, 'little') + (6).to_bytes(4, 'little')  # complex floating point
  path.write_bytes(data)
  with pytest.raises(InputError, match=r'a\.tif: cannot be read as an image \(.*sample format'):
    read_stack_folder(tmp_path)
