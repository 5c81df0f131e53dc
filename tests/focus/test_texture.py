"""Texture is found where some frame shows it in focus, despite noise, and nowhere else."""

import numpy as np
import pytest
from scipy import ndimage

from focal_jax.focus.texture import texture_share

SIZE = (160, 240)
DISC = np.hypot(*(np.mgrid[: SIZE[0], : SIZE[1]].T - (80, 110)).T) < 55
INSIDE, OUTSIDE = (ndimage.binary_erosion(part, iterations=12) for part in (DISC, ~DISC))


def texture(seed, contrast):
  rng = np.random.default_rng(seed)
  layers = [ndimage.gaussian_filter(rng.standard_normal(SIZE), sigma) for sigma in (0.7, 1.5, 3, 6)]
  picture = sum(layer / layer.std() for layer in layers)
  return 0.5 + contrast * picture / picture.std()


def stack(frames=6, noise=0.006, least_px=6.0, contrast=0.1, bits=255):
  """A disc whose focus runs through the sweep, before a background that is blurred by `least_px` at least; uint8."""
  rng = np.random.default_rng(0)
  near, far = texture(1, contrast), texture(2, contrast)
  made = []
  for n in range(frames):
    disc = ndimage.gaussian_filter(near, 0.5 + 3 * abs(n / (frames - 1) - 0.4))
    back = ndimage.gaussian_filter(far, least_px + 6 * n / frames)
    made.append(np.where(DISC, disc, back) + rng.normal(0, noise, SIZE))
  return np.round(np.clip(np.repeat(np.stack(made)[..., None], 3, -1), 0, 1) * bits).astype(np.uint8)


def share_of(images, motion=None, fov=None):
  fov = np.ones(len(images)) if fov is None else fov
  return texture_share(lambda n: images[n] / np.float32(255), motion, fov)


@pytest.mark.parametrize('noise', [0.0, 0.003, 0.01])
@pytest.mark.parametrize('frames', [4, 6, 30])
@pytest.mark.parametrize('least_px', [4.0, 8.0])
def test_surfaces_that_are_never_sharp_show_no_texture(noise, frames, least_px):
  share = share_of(stack(frames, noise, least_px))
  assert share.dtype == np.float32
  assert share.min() >= 0
  assert share.max() <= 1
  assert np.mean(share[INSIDE] > 0.9) > 0.9
  assert np.mean(share[OUTSIDE] < 0.1) > 0.93


def test_the_scale_is_the_finest_that_the_stack_has():
  """A picture that was enlarged is soft everywhere; its sharpest parts still count as textured."""
  soft = np.stack([ndimage.gaussian_filter(frame, (1.6, 1.6, 0)) for frame in stack(noise=0.0, least_px=12)])
  noisy = np.clip(soft + np.random.default_rng(0).normal(0, 1, soft.shape[:3])[..., None], 0, 255)
  share = share_of(np.round(noisy).astype(np.uint8))
  assert np.mean(share[INSIDE] > 0.5) > 0.8
  assert np.mean(share[OUTSIDE] < 0.5) > 0.9


@pytest.mark.parametrize('value', [0, 128, 255])
def test_plain_frames(value):
  assert share_of(np.full((3, *SIZE, 3), value, np.uint8)).max() == 0


def test_frames_of_noise_alone():
  noise = np.random.default_rng(0).normal(128, 3, (8, *SIZE))
  share = share_of(np.round(np.repeat(noise[..., None], 3, -1)).astype(np.uint8))
  assert np.mean(share > 0.5) < 0.01


def test_texture_everywhere_in_every_frame():
  frame = np.round(np.repeat(texture(3, 0.1)[..., None], 3, -1) * 255).astype(np.uint8)
  assert np.mean(share_of(np.stack([frame] * 3)) > 0.9) > 0.9


def test_frames_that_moved():
  """Texture is where the aligned frames show it."""
  images = stack()
  moved = images.copy()
  moved[2] = np.roll(images[2], 20, axis=1)  # the sharpest one
  motion = np.zeros((6, 3), np.float32)
  motion[2, 1] = -20
  still, aligned = share_of(images), share_of(moved, motion)
  inner = ndimage.binary_erosion(np.ones(SIZE, bool), iterations=25)
  assert np.mean(np.abs(still - aligned)[inner]) < 0.02
