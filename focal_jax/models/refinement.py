"""Classical depth from focus, refined: a network that learns where to overrule it, and what lies beyond the sweep.

Where the published network (`depth`) has to learn from pictures what sharpness is, this one is given it, in a form that
does not tell how strong the blur, the texture or the noise is (`focus_curves`), and starts from the depth that
`classical.depth_from_focus` finds. A U-Net over space and frames, at half the resolution and below, gives each pixel

* a focus distribution of its own, over the frames and over places beyond both ends of the sweep;
* the distribution of its surroundings, for what no frame tells (`fill`);
* the shares in which these two and the classical estimate are mixed.

Untrained it is the classical estimate for the most part. Nothing is normalised by statistics of a batch: stacks of any
number of frames may follow each other.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax import classical
from focal_jax.models.blocks import CUBE, PLANE, POINT, Stack, apply_block, double_nearest, expected_focus, upsample
from focal_jax.models.curves import ScaledConv, space_to_depth, upsample_channels
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.focus_curves import MEASURES, focus_curves, halve, luminance

FEATURES = (16, 24, 32, 48, 64)  # at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution
GUIDE_FEATURES = 16  # of what a pixel has once, not once a frame
BEYOND = (0.12, 0.36)  # places beyond either end of the sweep, in parts of its range
SCORE_GAIN = 1.0  # of each curve in the score before training
RESIDUAL_GAIN = 0.3  # before training; branches that start at 0 hardly ever take part
HEAD_SCALE = 0.1  # of what is read off features, so that the untrained network is the measures' own peak
SHARES = (1.0, 0.0, -1.0)  # logits before training of classical estimate, own distribution, surroundings
BEYOND_SCORE = -3.0  # before training, of each place beyond the ends
FILL_PRIOR = 0.1  # how much a pixel takes from its surroundings, next to the weight 0 .. 1 of what is known of it


class Residual(nn.Module):
  """x + gain * two convolutions of it."""

  kernel_size: tuple[int, int, int] = CUBE

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    cell = partial(ScaledConv, x.shape[-1], self.kernel_size)
    y = cell(name='conv2')(nn.relu(cell(name='conv1')(nn.relu(x))))
    return x + self.param('gain', nn.initializers.constant(RESIDUAL_GAIN), ()).astype(x.dtype) * y


class RefinementNetwork(nn.Module):
  """Aligned frames, normalised to -1 .. 1, to depth in the unit of `focus`; interface of `depth.DepthNetwork`.

  Two frames or more, in the order of their focus; height and width must be multiples of 32. Depth may lie beyond the
  first and last focus by up to `BEYOND[-1]` of the range between them. `remat`: see `apply_block`.
  """

  remat: bool = False
  colours: bool = False
  use_classical: bool = True
  use_fill: bool = True
  use_guide: bool = True
  beyond: bool = True
  octaves: bool = True

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns the depth maps D1 .. D4, coarse to fine, the focus distribution of D4 and its confidence."""
    (b, n, height, width, _), dtype = images.shape, images.dtype
    run = partial(apply_block, remat=self.remat)
    luma = luminance(images)
    index, evidence = _classical(images)
    curves, contrast = focus_curves(luma)
    tent, offset = _around(index, n)

    inputs = [*curves, tent, offset]
    if not self.use_classical:
      inputs = [*curves]
    inputs = jnp.stack(inputs, -1).astype(dtype)
    if self.colours:
      inputs = jnp.concatenate([inputs, images], -1)
    sharp = classical_all_in_focus(images, index)
    once = jnp.concatenate([jnp.stack([*contrast, evidence], -1), sharp], -1)[:, None].astype(dtype)
    guide = ScaledConv(GUIDE_FEATURES, PLANE, name='guide_stem')(space_to_depth(once))
    guide = Residual(PLANE, name='guide')(guide)
    x = ScaledConv(FEATURES[0], PLANE, name='stem')(space_to_depth(inputs))
    skips = []
    for level, features in enumerate(FEATURES):
      luma = halve(luma) if level < 3 else luma
      if level:
        x = ScaledConv(features, PLANE, stride=2, name=f'down{level}')(nn.relu(x))
        if self.use_guide:
          guide = ScaledConv(GUIDE_FEATURES, PLANE, stride=2, name=f'guide_down{level}')(nn.relu(guide))
      if self.use_guide:
        x = x + ScaledConv(features, POINT, name=f'guide_in{level}')(nn.relu(guide))
      if self.octaves and level < 3:
        octave = jnp.stack(focus_curves(luma, level + 1)[0], -1).astype(dtype)
        x = x + ScaledConv(features, PLANE, name=f'octave{level}')(octave)
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'encoder{level}'), x)
      skips.append(x)
    x = run(Residual(name='bottom'), x)

    pyramid = []
    for level in range(len(FEATURES) - 2, -1, -1):
      x = skips[level] + double_nearest(ScaledConv(FEATURES[level], POINT, name=f'up{level}')(nn.relu(x)))
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'decoder{level}'), x)
      if level:
        scores = HEAD_SCALE * ScaledConv(1, PLANE, name=f'score{level}')(nn.relu(x))
        distribution = jax.nn.softmax(upsample(scores[..., 0], height, width), axis=1)
        pyramid.append(expected_focus(distribution, focus))

    x = nn.relu(x)
    outputs = upsample_channels(HEAD_SCALE * ScaledConv(1 + MEASURES, PLANE, name='score0')(x), height, width)
    scores = outputs[..., 0] + sum((SCORE_GAIN + outputs[..., 1 + i]) * curves[i] for i in range(MEASURES))

    summary = jnp.concatenate([x.mean(1, keepdims=True), x.max(1, keepdims=True), nn.relu(guide0(skips, x))], -1)
    far = jnp.concatenate([x[:, :1], x[:, 1:2], summary], -1)
    near = jnp.concatenate([x[:, -1:], x[:, -2:-1], summary], -1)
    places = [
      BEYOND_SCORE + HEAD_SCALE * self._head(end, len(BEYOND), name) for end, name in ((far, 'far'), (near, 'near'))
    ]
    far, near = (jnp.moveaxis(upsample_channels(p, height, width)[:, 0], -1, 1) for p in places)
    top = scores.max(1, keepdims=True)
    if self.beyond:
      scores = jnp.concatenate([far[:, ::-1] + top, scores, near + top], 1)
    distribution = jax.nn.softmax(scores, axis=1)

    outputs = HEAD_SCALE * self._head(summary, 4, 'shares')
    mask = jnp.where(jnp.asarray([self.use_classical, True, self.use_fill]), 0.0, -30.0)
    logits = jnp.asarray(SHARES) + upsample_channels(outputs[..., :3], height, width)[:, 0] + mask
    shares = jax.nn.softmax(logits, axis=-1)
    k = len(BEYOND) if self.beyond else 0
    estimate = jnp.pad(tent, ((0, 0), (k, k), (0, 0), (0, 0)))
    own = distribution
    distribution = shares[:, None, ..., 0] * estimate + shares[:, None, ..., 1] * own
    if self.use_fill:
      known = jax.nn.sigmoid(outputs[:, 0, ..., 3].astype(jnp.float32) / HEAD_SCALE)[:, None]
      around = upsample(fill(halve(own), known), height, width)
      distribution = distribution + shares[:, None, ..., 2] * around
    pyramid.append(expected_focus(own, _places(focus, k)))
    pyramid.append(expected_focus(distribution, _places(focus, k)))
    frames = distribution[:, k : k + n]
    if k:
      frames = frames.at[:, 0].add(distribution[:, :k].sum(1)).at[:, -1].add(distribution[:, k + n :].sum(1))
    return DepthMaps(tuple(pyramid), frames)

  def draw(
    self, rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
  ) -> np.ndarray:
    """Initial values, as flax's initialisers have them; see `end_to_end.draw_variable`."""
    if path[-1] == 'kernel':
      bound = np.prod(shape[:-1]) ** -0.5
      return rng.uniform(-bound, bound, shape)
    return np.full(shape, RESIDUAL_GAIN if path[-1] == 'gain' else 0.0)

  def _head(self, x: Stack, outputs: int, name: str) -> Stack:
    hidden = ScaledConv(GUIDE_FEATURES, PLANE, name=f'{name}_hidden')(x)
    return ScaledConv(outputs, PLANE, name=f'{name}_out')(nn.relu(hidden))


def guide0(skips, x):
  return skips[0].mean(1, keepdims=True)


def _classical(images):
  find = partial(classical.depth_from_focus)
  index, evidence = jax.vmap(lambda frames: find(frames, jnp.arange(frames.shape[0], dtype=jnp.float32)))(
    jax.lax.stop_gradient((images.astype(jnp.float32) + 1.0) / 2.0)
  )
  return jax.lax.stop_gradient((index, evidence))


def _around(index: Float[Array, 'B H W'], n: int):
  """Of each frame: its share in the classical estimate, and how far it lies from it, in parts of the sweep, bounded."""
  difference = jnp.arange(n, dtype=jnp.float32)[:, None, None] - index[:, None]
  return jnp.maximum(1.0 - jnp.abs(difference), 0.0), jnp.tanh(3.0 * difference / (n - 1))


def classical_all_in_focus(images, index):
  n = images.shape[1]
  nearest = jnp.clip(jnp.round(index), 0, n - 1).astype(int)
  return jnp.take_along_axis(images, nearest[:, None, :, :, None], axis=1)[:, 0]


def _places(focus: Float[Array, 'B N'], k: int) -> Float[Array, 'B P']:
  """Focus coordinates of the distribution: of the places beyond the first frame, the frames, and beyond the last."""
  if not k:
    return focus
  beyond = jnp.asarray(BEYOND) * (focus[:, -1:] - focus[:, :1])
  return jnp.concatenate([focus[:, :1] - beyond[:, ::-1], focus, focus[:, -1:] + beyond], axis=1)


def fill(value: Float[Array, 'B K H W'], weight: Float[Array, 'B 1 H W']) -> Float[Array, 'B K H W']:
  """`classical.fill` of many values with one weight 0 .. 1: what a pixel does not know it takes from its surroundings."""
  height, width = value.shape[-2:]
  if height == width == 1:
    return value
  pad = ((0, 0), (0, 0), (0, height % 2), (0, width % 2))
  pooled = halve(jnp.pad(weight, pad))
  coarse = halve(jnp.pad(weight * value, pad)) / jnp.maximum(pooled, 1e-9)
  coarse = fill(coarse, pooled)
  shape = (*value.shape[:2], 2 * coarse.shape[-2], 2 * coarse.shape[-1])
  coarse = jax.image.resize(coarse, shape, 'linear')[..., :height, :width]
  return (weight * value + FILL_PRIOR * coarse) / (weight + FILL_PRIOR)
