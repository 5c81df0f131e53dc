"""Files that Pillow decodes and files that it does not, of all kinds, some packed here byte by byte."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiff_files import write_tiff

from focal_jax.data.folder import read_stack_folder
from focal_jax.data.formats import readable_suffixes
from focal_jax.errors import InputError

PATTERN = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize(
  ('orientation', 'upright'),
  [
    (1, lambda pixels: pixels),
    (2, lambda pixels: pixels[:, ::-1]),
    (3, lambda pixels: pixels[::-1, ::-1]),
    (4, lambda pixels: pixels[::-1]),
    (5, lambda pixels: pixels.swapaxes(0, 1)),
    (6, lambda pixels: np.rot90(pixels, -1)),
    (7, lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1)),
    (8, np.rot90),
  ],
)
def test_exif_orientation(tmp_path, suffix, orientation, upright):
  exif = Image.Exif()
  exif[0x0112] = orientation
  for name in 'ab':
    Image.fromarray(PATTERN).save(tmp_path / f'{name}.{suffix}', exif=exif)
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images, np.stack([upright(PATTERN)] * 2))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA'])
def test_pixel_modes(tmp_path, mode):
  image = Image.fromarray(PATTERN).convert(mode)
  for name in 'ab':
    image.save(tmp_path / f'{name}.png')
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images[0], np.asarray(image.convert('RGB')))


@pytest.mark.filterwarnings('error')
def test_palette_with_transparency(tmp_path):
  image = Image.fromarray(PATTERN).quantize(8)
  for name in 'ab':
    image.save(tmp_path / f'{name}.png', transparency=bytes(range(8)))
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images[0], np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
  grey = np.array([[0, 128, 129, 255, 257, 32768, 65406, 65535]], np.uint16)
  for name in 'ab':
    Image.fromarray(grey).save(tmp_path / f'{name}.{suffix}')
  images = read_stack_folder(tmp_path).images
  np.testing.assert_array_equal(images[0, 0, :, 0], np.round(grey[0] / 257))
  assert np.all(images == images[..., :1])


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'bmp', 'webp'])
@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.95])
def test_truncated_image(tmp_path, suffix, share):
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
  for name in 'ab':
    noise.save(tmp_path / f'{name}.{suffix}')
  path = tmp_path / f'b.{suffix}'
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  with pytest.raises(InputError, match=rf'b\.{suffix}: cannot be read as an image') as caught:
    read_stack_folder(tmp_path)
  assert '\n' not in str(caught.value)
  assert share or 'the file is empty' in str(caught.value)


def test_unreadable_images(tmp_path):
  Image.fromarray(PATTERN).save(tmp_path / 'a.png')
  (tmp_path / 'b.png').write_text('<!DOCTYPE html>')
  with pytest.raises(InputError, match=r'b\.png: cannot be read as an image'):
    read_stack_folder(tmp_path)
  (tmp_path / 'b.png').unlink()
  (tmp_path / 'b.png').symlink_to('nowhere.png')
  with pytest.raises(InputError, match=r'b\.png: cannot be read as an image'):
    read_stack_folder(tmp_path)


def test_large_images(tmp_path, monkeypatch):
  for name in 'ab':
    Image.fromarray(PATTERN).save(tmp_path / f'{name}.png')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)  # 24 are above it: Pillow warns.
  assert read_stack_folder(tmp_path).images.shape == (2, 4, 6, 3)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)  # More than twice as many: Pillow refuses.
  with pytest.raises(InputError, match=r'a\.png: .*DecompressionBomb'):
    read_stack_folder(tmp_path)


def write_png(path: Path, pixels: np.ndarray, icc_profile: bytes | None = None) -> None:
  """16 bits; the colour type from the channels: 1, grey; 2, grey and alpha; 3, RGB; 4, RGBA."""
  height, width, channels = pixels.shape
  rows = pixels.astype('>u2').reshape(height, -1)
  data = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
  header = struct.pack('>IIBBBBB', width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
  profile = [] if icc_profile is None else [(b'iCCP', b'profile\0\0' + zlib.compress(icc_profile))]
  chunks = [(b'IHDR', header), *profile, (b'IDAT', data), (b'IEND', b'')]
  path.write_bytes(
    b'\x89PNG\r\n\x1a\n'
    + b''.join(struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks)
  )


def wide_pixels(channels: int) -> np.ndarray:
  return np.random.default_rng(channels).integers(0, 65536, (2, 5, 7, channels), dtype=np.uint16)


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('kind', ['png', 'tif', 'big-endian tif'])
def test_16_bits(tmp_path, kind, channels):
  pixels = wide_pixels(channels)
  pixels[0, 0, 0] = 65535
  for name, frame in zip('ab', pixels, strict=True):
    if kind == 'png':
      write_png(tmp_path / f'{name}.png', frame)
    else:
      write_tiff(tmp_path / f'{name}.tif', frame, '>' if 'big' in kind else '<')
  stack = read_stack_folder(tmp_path)
  expected = pixels[..., : min(channels, 3)] / 257
  # Colours are cut off, grey is rounded.
  np.testing.assert_allclose(
    stack.images, np.broadcast_to(expected, stack.images.shape), atol=0.501 if channels == 1 else 1
  )
  assert ('Transparency was ignored.' in stack.notes) == (channels == 4)


def test_16_bit_grey_with_alpha(tmp_path):
  pixels = wide_pixels(2)
  for name, frame in zip('ab', pixels, strict=True):
    write_png(tmp_path / f'{name}.png', frame)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images, np.broadcast_to(pixels[..., :1] / 257, stack.images.shape), atol=0.51)
  assert 'Transparency was ignored.' in stack.notes
  for name, frame in zip('ab', pixels >> 4, strict=True):
    write_png(tmp_path / f'{name}.png', frame)
  expected = (pixels >> 4)[..., :1] * (255.0 / 4095)
  images = read_stack_folder(tmp_path).images
  np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), atol=0.51)


def test_16_bit_tiff_on_its_side(tmp_path):
  pixels = wide_pixels(1)
  pixels[0, 0, 0] = 65535
  for name, frame in zip('ab', pixels, strict=True):
    write_tiff(tmp_path / f'{name}.tif', frame, orientation=6)
  images = read_stack_folder(tmp_path).images
  np.testing.assert_array_equal(images[..., 0], np.round(np.rot90(pixels[..., 0], -1, axes=(1, 2)) / 257))


def test_8_bit_tiff_on_its_side(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 8
  for name in 'ab':
    Image.fromarray(PATTERN[..., 0]).save(tmp_path / f'{name}.tif', exif=exif)
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images[0, ..., 0], np.rot90(PATTERN[..., 0]))


@pytest.mark.parametrize(
  ('highest', 'white'), [(200, 255), (1000, 1023), (4095, 4095), (4096, 16383), (16384, 65535), (65535, 65535)]
)
def test_white_of_16_bit_grey_is_that_of_the_camera(tmp_path, highest, white):
  grey = np.array([[[0], [highest // 3], [highest // 2], [highest]]], np.uint16)
  write_png(tmp_path / 'a.png', grey // 2)
  write_png(tmp_path / 'b.png', grey)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images[..., 0], np.round(np.stack([grey // 2, grey])[..., 0] * (255 / white)))
  notes = [note for note in stack.notes if 'white was taken' in note]
  assert notes == ([] if white == 65535 else [f'16-bit pixels reach {highest} only: white was taken as {white}.'])


@pytest.mark.parametrize('kind', ['png', 'tif', 'big-endian tif'])
@pytest.mark.parametrize(('highest', 'white'), [(221, 255), (3550, 4095), (60000, 65535)])
def test_white_of_16_bit_colour_is_that_of_grey(tmp_path, kind, highest, white):
  colours = np.random.default_rng(0).integers(0, highest + 1, (2, 4, 5, 3)).astype(np.uint16)
  colours[1, 2, 3, 1] = highest
  for name, frame in zip('ab', colours, strict=True):
    if kind == 'png':
      write_png(tmp_path / f'{name}.png', frame)
    else:
      opaque = np.concatenate([frame, np.full_like(frame[..., :1], 65535)], axis=-1)  # Alpha does not count.
      write_tiff(tmp_path / f'{name}.tif', opaque, '>' if 'big' in kind else '<', orientation=6)
  expected = colours if kind == 'png' else np.rot90(colours, -1, axes=(1, 2))
  np.testing.assert_array_equal(
    read_stack_folder(tmp_path).images, np.floor(expected * 255.0 / white + 0.5).astype(np.uint8)
  )


@pytest.mark.parametrize(('bits', 'highest', 'white'), [(8, 255, 255), (16, 4000, 4095), (16, 65535, 65535)])
def test_zero_may_be_white(tmp_path, bits, highest, white):
  stored = np.random.default_rng(0).integers(0, highest + 1, (4, 5, 1)).astype(f'uint{bits}')
  stored[0, 0] = highest
  for name in 'ab':
    write_tiff(tmp_path / f'{name}.tif', stored, white_is_zero=True)
  expected = 255 - stored * (255.0 / white)
  np.testing.assert_allclose(read_stack_folder(tmp_path).images[0, ..., :1], expected, atol=0.51)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
@pytest.mark.parametrize('others', [3, 6])
def test_orientation_is_that_of_the_first_frame(tmp_path, suffix, others):
  pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 1), dtype=np.uint8).repeat(8, 0).repeat(8, 1).repeat(3, 2)
  for name, orientation in zip('abc', (1, others, 1), strict=True):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(
      tmp_path / f'{name}.{suffix}', exif=exif, **({'quality': 95} if suffix == 'jpg' else {})
    )
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images.astype(int), [pixels] * 3, atol=40 if suffix == 'jpg' else 0)
  (note,) = (note for note in stack.notes if 'orientation' in note)
  assert note == (f'EXIF orientation of b.{suffix} differs from that of a.{suffix}, which was used for all frames.')


def test_orientation_of_frames_that_were_turned_since(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(PATTERN).save(tmp_path / 'a.png', exif=exif)
  Image.fromarray(np.rot90(PATTERN, -1)).save(tmp_path / 'b.png')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images, [np.rot90(PATTERN, -1)] * 2)
  assert any('each was rotated by its own' in note for note in stack.notes)


def test_black_frame_is_named(tmp_path):
  for name, value in zip('abc', (100, 3, 100), strict=True):
    Image.new('RGB', (6, 4), (value,) * 3).save(tmp_path / f'{name}.png')
  assert 'Nearly black: b.png.' in read_stack_folder(tmp_path).notes


def test_dark_frames_are_noted(tmp_path):
  for name, value in zip('ab', (15, 14), strict=True):
    Image.new('RGB', (2, 2), (value,) * 3).save(tmp_path / f'{name}.png')
  assert 'The frames are dark: their brightest value is 15 of 255.' in read_stack_folder(tmp_path).notes


def test_overexposed_frames_are_noted(tmp_path):
  for name, value in zip('ab', (255, 251), strict=True):
    Image.new('RGB', (2, 2), (value,) * 3).save(tmp_path / f'{name}.png')
  assert 'The frames are overexposed: their darkest value is 251 of 255.' in read_stack_folder(tmp_path).notes


def test_more_pages_are_noted(tmp_path):
  pages = [Image.fromarray(PATTERN), Image.fromarray(PATTERN[::-1])]
  pages[0].save(tmp_path / 'a.tif', save_all=True, append_images=pages[1:])
  pages[1].save(tmp_path / 'b.tif')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images, [PATTERN, PATTERN[::-1]])
  assert 'Only the first image in a.tif was read.' in stack.notes


def test_frames_are_read_again_in_another_size(tmp_path):
  """In the order of the stack, with its region and the white level of all of it."""
  rng = np.random.default_rng(0)
  for n in range(3):
    pixels = rng.integers(0, 2 ** (10 + n), (40, 60), dtype=np.uint16)  # 12 bits in 16
    Image.fromarray(pixels).save(tmp_path / f'{n}.png')
  options = {'reverse': True, 'region': (10, 4, 40, 30)}
  whole, small = (read_stack_folder(tmp_path, max_side=side, **options) for side in (None, 20))
  assert small.images.shape == (3, 15, 20, 3)
  assert (small.size(), small.size(30), small.size(20)) == ((30, 40), (22, 30), (15, 20))
  turned = small.reversed('for a test')
  for n in range(3):
    np.testing.assert_array_equal(small.frame(n), whole.images[n])
    np.testing.assert_array_equal(small.frame(n, 20), small.images[n])
    np.testing.assert_array_equal(turned.frame(2 - n), whole.images[n])
  np.testing.assert_array_equal(whole.frame(1, 20), small.images[1])
  (tmp_path / '1.png').unlink()
  with pytest.raises(InputError, match=r'1\.png'):
    small.frame(1)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_big_tiff(tmp_path, channels, kind):
  pixels = (wide_pixels(channels) >> (8 if kind is np.uint8 else 0)).astype(kind)
  pixels[0, 0, 0] = np.iinfo(kind).max
  for name, frame in zip('ab', pixels, strict=True):
    write_tiff(tmp_path / f'{name}.tif', frame, big=True)
  images = read_stack_folder(tmp_path).images
  expected = np.broadcast_to(pixels / np.iinfo(kind).max * 255, images.shape)
  np.testing.assert_allclose(images, expected, atol=0 if kind is np.uint8 else 1)


@pytest.mark.parametrize('order', '<>')
def test_16_bit_colours_in_compressed_planes(tmp_path, order):
  pixels = wide_pixels(3)
  for name, frame in zip('ab', pixels, strict=True):
    write_tiff(tmp_path / f'{name}.tif', frame, order, planar=True, compressed=True)
  np.testing.assert_allclose(read_stack_folder(tmp_path).images, pixels / 257, atol=1)


@pytest.mark.parametrize(
  ('plugin', 'suffix', 'options'),
  [('pillow_heif', '.heic', {'quality': -1, 'chroma': 444}), ('pillow_jxl', '.jxl', {'lossless': True})],
)
def test_formats_of_plugins(tmp_path, plugin, suffix, options):
  """The values of lossless files with the same frames."""
  pytest.importorskip(plugin, reason=f'{plugin} is not installed')
  assert suffix in readable_suffixes()
  y, x = np.mgrid[:48, :64]
  frames = [np.stack([4 * x + n, 5 * y, 2 * (x + y)], -1).astype(np.uint8) for n in range(2)]
  for name, frame in zip('ab', frames, strict=True):
    Image.fromarray(frame).save(tmp_path / f'{name}{suffix}', **options)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images, frames, atol=3)  # HEIC stores luma and chroma
  assert stack.names == [f'a{suffix}', f'b{suffix}']


@pytest.mark.parametrize('channels', [1, 3])
def test_hot_pixels_do_not_make_the_rest_black(tmp_path, channels):
  pixels = np.random.default_rng(0).integers(0, 2048, (2, 100, 120, channels), dtype=np.uint16)
  pixels[0, 20, 30], pixels[0, 60, 7] = 65535, 50000
  for n, frame in enumerate(pixels):
    write_png(tmp_path / f'{n}.png', frame)
  stack = read_stack_folder(tmp_path)
  expected = np.round(np.minimum(pixels, 4095) * (255 / 4095))
  np.testing.assert_allclose(stack.images, np.broadcast_to(expected, stack.images.shape), atol=1)
  assert any('reach 2047 only: white was taken as 4095' in note for note in stack.notes)
  assert any(f'Up to {2 * channels} pixels of a frame' in note for note in stack.notes)
  # A highlight is not a hot pixel.
  pixels[1, 40:42, 50:52] = 65535
  write_png(tmp_path / '1.png', pixels[1])
  assert not any('white was taken' in note for note in read_stack_folder(tmp_path).notes)


@pytest.mark.parametrize(('black', 'white'), [(20000, 21020), (500, 602)])
def test_16_bits_with_an_offset(tmp_path, black, white):
  pixels = np.random.default_rng(0).integers(black, white + 1, (2, 10, 12, 1), dtype=np.uint16)
  pixels[0, 0, :2, 0] = black, white
  for n, frame in enumerate(pixels):
    write_png(tmp_path / f'{n}.png', frame)
  stack = read_stack_folder(tmp_path)
  expected = np.broadcast_to(np.round((pixels - float(black)) * (255 / (white - black))), stack.images.shape)
  np.testing.assert_allclose(stack.images, expected, atol=1)
  assert any(f'range from {black} to {white}, which became black and white' in note for note in stack.notes)
