"""Colour profiles, against the published matrices of the colour spaces."""

import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from focal_jax.data.colour import matrix_profile
from focal_jax.data.folder import read_stack_folder
from tests.data.test_frames import write_png

# To XYZ under D65 (the columns are red, green, blue), as the standards print them.
SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
ADOBE = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
P3 = np.array([[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0, 0.04511, 1.04394]])
P3_COLOURANTS = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
# The middle of each gamut, which sRGB holds, too.
PIXELS = np.random.default_rng(0).integers(70, 160, (5, 7, 3), dtype=np.uint8)


def in_srgb(pixels, matrix, gamma):
  linear = (pixels / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ matrix).T
  linear = np.clip(linear, 0, 1)
  return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def write(folder, **options):
  for name in 'ab':
    Image.fromarray(PIXELS).save(folder / f'{name}.tif', **options)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(('gamma', 'told'), [(1, 'PNG with gamma 1'), (0.5556, 'PNG with gamma 1.8'), (0.45455, None)])
def test_gamma_of_pngs(tmp_path, gamma, told, channels):
  pixels = PIXELS[..., :channels]
  chunk = b'gAMA' + round(gamma * 100000).to_bytes(4, 'big')
  for name in 'ab':
    path = tmp_path / f'{name}.png'
    Image.fromarray(pixels.squeeze()).save(path)
    data = path.read_bytes()  # the header ends at 33
    path.write_bytes(data[:33] + (4).to_bytes(4, 'big') + chunk + zlib.crc32(chunk).to_bytes(4, 'big') + data[33:])
  stack = read_stack_folder(tmp_path)
  expected = in_srgb(np.broadcast_to(pixels, PIXELS.shape), SRGB, 1 / gamma) if told else pixels
  np.testing.assert_allclose(stack.images[0], np.broadcast_to(expected, PIXELS.shape), atol=1.5)
  assert [note for note in stack.notes if 'Colours' in note] == (
    [f'Colours were converted from "{told}" to sRGB.'] if told else []
  )


@pytest.mark.parametrize('named', ['Display P3', 'sRGB built-in'])
def test_display_p3_whatever_its_name(tmp_path, named):
  write(tmp_path, icc_profile=matrix_profile(named, P3_COLOURANTS, 2.2))
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images[0], in_srgb(PIXELS, P3, 2.2), atol=1.5)
  assert abs(stack.images[0].astype(int) - PIXELS).max() > 5
  assert f'Colours were converted from "{named}" to sRGB.' in stack.notes


def test_adobe_rgb_without_a_profile(tmp_path):
  exif = Image.Exif()
  exif.get_ifd(0x8769)[0xA001] = 65535  # ColorSpace: uncalibrated
  exif.get_ifd(0x8769)[0xA005] = {1: 'R03'}
  for name in 'ab':
    Image.fromarray(PIXELS).save(tmp_path / f'{name}.webp', exif=exif, lossless=True)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images[0], in_srgb(PIXELS, ADOBE, 563 / 256), atol=1.5)
  assert 'Colours were converted from "Adobe RGB" to sRGB.' in stack.notes


def test_16_bits_have_profiles_too(tmp_path):
  profile = matrix_profile('Display P3', P3_COLOURANTS, 2.2)
  write(tmp_path, icc_profile=profile)
  expected = read_stack_folder(tmp_path).images
  for path in tmp_path.iterdir():
    path.unlink()
  for name in 'ab':
    write_png(tmp_path / f'{name}.png', PIXELS.astype(np.uint16) * 257, icc_profile=profile)
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images, expected)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA'])
def test_srgb_stays_as_it_is(tmp_path, mode):
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  image = Image.fromarray(PIXELS).convert(mode)
  for name in 'ab':
    image.save(tmp_path / f'{name}.png', icc_profile=profile)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images[0], np.asarray(image.convert('RGB')))
  assert not any('olour' in note for note in stack.notes)


@pytest.mark.parametrize('profile', [b'junk', bytes(200), matrix_profile('cut', P3_COLOURANTS, 2.2)[:300]])
def test_broken_profiles_are_noted(tmp_path, profile):
  write(tmp_path, icc_profile=profile)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images[0], PIXELS)
  assert sum('The colour profile of a.tif cannot be used' in note for note in stack.notes) == 1
