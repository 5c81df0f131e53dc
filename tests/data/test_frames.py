"""What Pillow decodes, and what it does not: files of all kinds, some of them packed here byte by byte."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.folder import read_stack_folder
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


@pytest.mark.parametrize('pixels', [np.float32([[0.5]]), np.int32([[65536]]), np.int32([[-1]])])
def test_unscalable_pixels(tmp_path, pixels):
  for name in 'ab':
    Image.fromarray(pixels).save(tmp_path / f'{name}.tif')
  with pytest.raises(InputError, match=r'a\.tif: .*expected'):
    read_stack_folder(tmp_path)


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


def write_png(path: Path, pixels: np.ndarray) -> None:
  """16 bits; the colour type from the channels: 1, grey; 2, grey and alpha; 3, RGB; 4, RGBA."""
  height, width, channels = pixels.shape
  rows = pixels.astype('>u2').reshape(height, -1)
  data = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
  header = struct.pack('>IIBBBBB', width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
  chunks = [(b'IHDR', header), (b'IDAT', data), (b'IEND', b'')]
  path.write_bytes(
    b'\x89PNG\r\n\x1a\n'
    + b''.join(struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks)
  )


def write_tiff(path: Path, pixels: np.ndarray, order: str = '<', planar: bool = False, orientation: int = 1) -> None:
  """16 bits, grey or RGB or RGBA, uncompressed, in one strip (a plane)."""
  height, width, channels = pixels.shape
  planes = [pixels[..., c] for c in range(channels)] if planar else [pixels]
  data = b''.join(plane.astype(f'{order}u2').tobytes() for plane in planes)
  offsets = [8 + n * len(data) // len(planes) for n in range(len(planes))]
  tags = {
    256: [width],
    257: [height],
    258: [16] * channels,
    259: [1],
    262: [1 if channels == 1 else 2],
    273: offsets,
    274: [orientation],
    277: [channels],
    278: [height],
    279: [len(data) // len(planes)] * len(planes),
    284: [2 if planar else 1],
    **({338: [2]} if channels == 4 else {}),
  }
  directory, more = struct.pack(f'{order}H', len(tags)), b''
  after = 8 + len(data) + 2 + 12 * len(tags) + 4
  for tag, values in tags.items():
    packed = struct.pack(f'{order}{len(values)}I', *values)
    if len(values) > 1:
      packed, more = struct.pack(f'{order}I', after + len(more)), more + packed
    directory += struct.pack(f'{order}HHI', tag, 4, len(values)) + packed
  start = b'II*\0' if order == '<' else b'MM\0*'
  path.write_bytes(start + struct.pack(f'{order}I', 8 + len(data)) + data + directory + bytes(4) + more)


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
  np.testing.assert_allclose(stack.images, np.broadcast_to(pixels[..., :1] / 257, stack.images.shape), atol=1)
  assert 'Transparency was ignored.' in stack.notes


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


def test_16_bit_planes_are_refused(tmp_path):
  for name in 'ab':
    write_tiff(tmp_path / f'{name}.tif', wide_pixels(3)[0], planar=True)
  with pytest.raises(InputError, match=r'a\.tif: .*16-bit colours in separate planes, expected interleaved'):
    read_stack_folder(tmp_path)


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


def test_dark_frames_are_told(tmp_path):
  for name, value in zip('ab', (15, 14), strict=True):
    Image.new('RGB', (2, 2), (value,) * 3).save(tmp_path / f'{name}.png')
  assert 'The frames are dark: their brightest value is 15 of 255.' in read_stack_folder(tmp_path).notes


def test_more_pages_are_told(tmp_path):
  pages = [Image.fromarray(PATTERN), Image.fromarray(PATTERN[::-1])]
  pages[0].save(tmp_path / 'a.tif', save_all=True, append_images=pages[1:])
  pages[1].save(tmp_path / 'b.tif')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images, [PATTERN, PATTERN[::-1]])
  assert 'Of the images in a.tif only the first was read.' in stack.notes
