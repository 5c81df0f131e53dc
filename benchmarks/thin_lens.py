"""Accuracy of defocus against brute force: rays through many points of a thin lens, in double precision.

  python -m benchmarks.thin_lens [--points=150]

Three overlapping slanted surfaces, 32 x 40 px, in frames focused at four distances. Prints the PSNR of the rendering by
`simulate.defocus`, over all pixels and within 5 px of surface edges.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from focal_jax.simulate import defocus


class Surface:
  """A surface defined at every point (y, x), px: its colour [..., 3], whether it is present, and its position."""

  def __init__(self, seed, inside, position):
    rng = np.random.default_rng(seed)
    self.waves = rng.normal(0, 1 / 9, (10, 2)), rng.uniform(0, 6.28, (10, 3)), rng.normal(0, 0.06, (10, 3))
    self.base, self.inside, self.position = rng.uniform(0.25, 0.7, 3), inside, position

  def colour(self, y, x):
    frequency, phase, amplitude = self.waves
    angle = 2 * np.pi * (y[..., None] * frequency[:, 0] + x[..., None] * frequency[:, 1])
    return np.clip(self.base + np.einsum('...wc,wc->...c', np.cos(angle[..., None] + phase), amplitude), 0, 1)


HEIGHT, WIDTH, MARGIN = 32, 40, 16
SCENE = [
  Surface(0, lambda y, x: np.full(y.shape, True), lambda y, x: 0.1 + 0.002 * y),
  Surface(1, lambda y, x: (y - 14) ** 2 + (x - 13) ** 2 < 81, lambda y, x: 0.5 + 0.003 * (x - 13)),
  Surface(2, lambda y, x: np.abs(0.9 * x + 0.44 * y - 33) < 3, lambda y, x: np.full(y.shape, 0.95)),
]
FOCI = np.array([0.1, 0.3, 0.5, 0.95])
SUBPIXELS = (np.arange(3) + 0.5) / 3 - 0.5


def disc_points(count):
  """Points evenly distributed over the unit disc: a golden-angle spiral."""
  index = np.arange(count) + 0.5
  angle = np.pi * (3 - np.sqrt(5)) * index
  return np.sqrt(index / count)[:, None] * np.stack([np.sin(angle), np.cos(angle)], -1)


def brute_force(points, blur, focus):
  """[H, W, 3]: the mean over rays through all points of the aperture, each stopped by the first surface it hits.

  A ray through point a hits a surface at position p where the image is shifted by blur (p - focus) a.
  """
  y0, x0 = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
  total = np.zeros((HEIGHT, WIDTH, 3))
  for dy in SUBPIXELS:
    for dx in SUBPIXELS:
      for along_y, along_x in points:
        met, colour = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH, 3))
        for surface in SCENE[::-1]:
          y, x = y0 + dy, x0 + dx
          for _ in range(2):  # the hit point depends on the position there
            shift = blur * (surface.position(y, x) - focus)
            y, x = y0 + dy + shift * along_y, x0 + dx + shift * along_x
          hit = surface.inside(y, x) & ~met
          colour[hit] = surface.colour(y[hit], x[hit])
          met |= hit
        total += colour
  return total / (len(points) * len(SUBPIXELS) ** 2)


def sample_scene():
  """Colour, alpha and position of the scene, averaged over pixels, with a margin."""
  y, x = np.mgrid[-MARGIN : HEIGHT + MARGIN, -MARGIN : WIDTH + MARGIN].astype(np.float64)
  places = [(y + dy, x + dx) for dy in SUBPIXELS for dx in SUBPIXELS]
  colour = np.stack([np.mean([s.colour(*place) for place in places], 0) for s in SCENE])
  alpha = np.stack([np.mean([s.inside(*place) for place in places], 0) for s in SCENE])
  position = np.stack([s.position(y, x) for s in SCENE])
  return [jnp.asarray(a, jnp.float32) for a in (np.moveaxis(colour, -1, 1), alpha, position)]


def psnr(a, b):
  return -10 * np.log10(np.mean((a - b) ** 2))


def edges(alpha):
  """Pixels within 5 px of the edge of a surface."""
  top = np.max([(k + 1) * (np.asarray(a) > 0.5) for k, a in enumerate(alpha)], axis=0)
  border = ndimage.maximum_filter(top, 3) != ndimage.minimum_filter(top, 3)
  return ndimage.binary_dilation(border, iterations=5)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--points', type=int, default=150, help='points of the lens, for each of nine subpixels')
  points = disc_points(parser.parse_args().points)
  colour, alpha, position = sample_scene()
  near = edges(alpha)
  print('| largest radius, px | mean of the frames, dB | worst frame | within 5 px of edges, worst frame |')
  print('| ---: | ---: | ---: | ---: |')
  for blur in (1.5, 3.0, 5.0, 8.0):
    radius = blur * jnp.abs(position[None] - FOCI[:, None, None, None])
    surfaces = defocus.premultiply(colour, alpha, jnp.zeros(()))
    frames = jax.jit(defocus.render, static_argnums=2)(surfaces, radius, defocus.disc_radii(blur))
    frames = np.asarray(frames).swapaxes(2, 3)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = [brute_force(points, blur, focus) for focus in FOCI]
    whole = [psnr(a, b) for a, b in zip(frames, expected, strict=True)]
    close = [psnr(a[near], b[near]) for a, b in zip(frames, expected, strict=True)]
    print(f'| {blur} | {np.mean(whole):.1f} | {min(whole):.1f} | {min(close):.1f} |')


if __name__ == '__main__':
  main()
