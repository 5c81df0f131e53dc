"""Refines classical depth from focus: a network learns where to overrule it, and estimates depth beyond the sweep.

The published network (`depth`) has to learn a measure of sharpness from images. This one takes sharpness in a form that
is independent of the strength of blur, texture and noise (`focus_curves`), and starts from the depth of
`classical.depth_from_focus`. From these, not from the frames themselves, a U-Net over space and frames, at half the
resolution and below, predicts for each pixel

* its own focus distribution, over the frames and over positions beyond both ends of the sweep, with an offset from each
  frame's focus, because a mean over the frames alone is biased towards them;
* depth and distribution of its surroundings, for pixels without depth information in any frame (`fill`);
* the weights of these two and of the classical estimate in the result.

Image edges come from the all-in-focus image of the classical estimate. Before training, the result is mostly the
classical estimate. There is no batch normalisation, so stacks with different numbers of frames may follow each other.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax.focus import classical
from focal_jax.focus.fill import fill as push_pull
from focal_jax.models import curves as curve_network
from focal_jax.models.blocks import CUBE, PLANE, POINT, Stack, apply_block, expected_focus, upsample
from focal_jax.models.conv import average_pool
from focal_jax.models.curves import ScaledConv, space_to_depth, upsample_channels
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.focus_curves import FINE, focus_curves, halve, luminance
from focal_jax.stack import confidence_from_spread
from focal_jax.warp import double

FEATURES = (16, 24, 32, 48, 64)  # at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution
OCTAVES = 3  # levels whose input includes focus curves of the frames at that level's resolution
GUIDE_FEATURES = 16  # channels of features that a pixel has once, not per frame
FARTHEST_OFFSET = 1.5  # frames: largest offset of the focus from a frame
BEYOND = (0.12, 0.36)  # places beyond either end of the sweep, as shares of its range
# Before training:
SCORE_GAIN = 1.0  # gain of each curve in a frame's score
RESIDUAL_GAIN = 0.3  # not 0 (SkipInit): branches that start at 0 hardly ever contribute
HEAD_SCALE = 0.1  # scale of the heads' outputs, so that the distribution initially peaks where the curves do
BEYOND_SCORE = -3.0  # score of each place beyond the ends, relative to the best frame's
SHARES = (1.0, 0.0, -1.0)  # logits of the classical estimate, the pixel's own distribution, the surroundings
FILL_PRIOR = 0.1  # weight of a pixel's surroundings; its own is 0 .. 1
TRUST_PX = 16  # side of the blocks over which the classical confidence is averaged; interpolated between them
TRUST_WIDTH = 0.03  # width of the transition to the classical estimate, in confidence (a sigmoid's scale)
# A network that is sure of another depth overrules a trusted estimate. All in shares of the focus range:
DIFFERENCE = (0.25, 0.6)  # difference of the two estimates at which it begins to, and at which it does so fully
UNSURE = 0.1  # standard deviation of the network's distribution from which it does not
MIN_WEIGHT = 1e-6  # floor of the weights of a fill, whose gradients divide by their square


Residual = partial(curve_network.Residual, initial_gain=RESIDUAL_GAIN)


class Head(nn.Module):
  """A few float32 outputs per pixel, small before training, from features [B, 1, H, W, C]."""

  outputs: int

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    x = ScaledConv(GUIDE_FEATURES, PLANE, name='hidden')(x)
    return HEAD_SCALE * ScaledConv(self.outputs, PLANE, name='out')(nn.relu(x)).astype(jnp.float32)


class RefinementNetwork(nn.Module):
  """Estimates depth in the unit of `focus` from aligned frames normalised to -1 .. 1; same interface as
  `depth.DepthNetwork`.

  Accepts two or more frames in the order of their focus; height and width must be multiples of 32. Depth may lie beyond
  the first and last focus: by up to `BEYOND[-1]` of the range between them, or `FARTHEST_OFFSET` frames. `remat`: see
  `apply_block`.
  """

  # Mean confidence of the classical estimate around a pixel, 0 .. 1, above which that estimate replaces the
  # network's, unless the network is sure of a very different depth; 0: never.
  trusted_confidence: float = 0.0
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns depth maps from coarse to fine: three of lower resolution, that of the pixel's own distribution, and the
    result; the focus distribution, whose shares beyond the sweep are added to its end frames; and the confidence.
    """
    n, height, width = images.shape[1:4]
    luma = luminance(images)
    index, evidence = classical_estimate(images)
    curves, limited, heights = focus_curves(luma)
    estimate, *offsets = estimate_features(index, n)

    def to_full(x):
      return upsample_channels(x, height, width)

    inputs = jnp.stack([*curves, *limited, estimate, *offsets], -1).astype(images.dtype)
    once = jnp.concatenate([jnp.stack([*heights, evidence], -1), nearest_frame(images, index)], -1)
    x, skips = self._encode(inputs, once[:, None].astype(images.dtype), luma)
    x, scores = self._decode(x, skips)
    pyramid = [expected_focus(jax.nn.softmax(to_full(s)[..., 0], axis=1), focus) for s in scores]

    x = nn.relu(x)
    outputs = to_full(HEAD_SCALE * ScaledConv(2 + len(FINE), PLANE, name='score0')(x))
    # The network's scores are added to the curves, so that even the untrained network peaks where the curves do.
    scores = outputs[..., 0] + sum((SCORE_GAIN + outputs[..., 1 + i]) * curve for i, curve in enumerate(curves))
    # Bounded; otherwise any frame could represent any depth, and the distribution would be meaningless.
    offset = FARTHEST_OFFSET * jnp.tanh(outputs[..., -1] / FARTHEST_OFFSET)
    # Over all frames: the maximum and the mean, before and after the decoder.
    summary = [x.mean(1, keepdims=True), x.max(1, keepdims=True), nn.relu(skips[0].mean(1, keepdims=True))]
    # Positions beyond an end are scored from the two frames next to it: sharpness that still rises there peaks beyond.
    top = scores.max(1, keepdims=True) + BEYOND_SCORE
    far, near = (
      top + jnp.moveaxis(to_full(Head(len(BEYOND), name=name)(jnp.concatenate([*ends, *summary], -1)))[:, 0], -1, 1)
      for name, ends in (('far', (x[:, :1], x[:, 1:2])), ('near', (x[:, -1:], x[:, -2:-1])))
    )
    own = jax.nn.softmax(jnp.concatenate([far[:, ::-1], scores, near], 1), axis=1)
    k = len(BEYOND)
    # Offsets are in frames; the spacing of the frames turns them into the unit of the focus.
    of_frames = focus[..., None, None] + offset * jnp.gradient(focus, axis=1)[..., None, None]
    far_places, near_places = (jnp.broadcast_to(p[..., None, None], far.shape) for p in positions_beyond(focus))
    places = jnp.concatenate([far_places, of_frames, near_places], 1)
    own_depth = jnp.sum(own * places, 1, keepdims=True)
    classical_depth = expected_focus(estimate, focus)[:, None]

    outputs = Head(4, name='shares')(jnp.concatenate(summary, -1))
    shares = jax.nn.softmax(jnp.asarray(SHARES) + to_full(outputs[..., :3]), axis=-1)
    if self.trusted_confidence:
      # Averaged over the surroundings, because otherwise depth would switch between the two from pixel to pixel.
      around = to_full(average_pool(evidence[:, None, ..., None], TRUST_PX))
      trust = jax.nn.sigmoid((around - self.trusted_confidence) / TRUST_WIDTH)
      # Strong blur misleads even a confident classical estimate: the network overrules it if it is sure of another.
      extent = jnp.maximum(jnp.abs(focus[:, -1] - focus[:, 0]), 1e-9)[:, None, None, None]
      spread = jnp.sqrt(jnp.sum(own * (places - own_depth) ** 2, 1, keepdims=True) + 1e-6 * extent**2)
      unsure = jnp.minimum(spread / (UNSURE * extent), 1.0)
      apart = jnp.abs(own_depth - classical_depth) / extent
      differs = jnp.clip((apart - DIFFERENCE[0]) / (DIFFERENCE[1] - DIFFERENCE[0]), 0.0, 1.0)
      trust = trust * (1.0 - differs * (1.0 - unsure))[..., None]
      shares = (1.0 - trust) * shares + trust * jnp.asarray([1.0, 0.0, 0.0])
    known = jax.nn.sigmoid(outputs[..., 3] / HEAD_SCALE)
    surroundings = upsample(fill(halve(jnp.concatenate([own_depth, own], 1)), known), height, width)

    def mixed(classical, own, surroundings):
      return shares[..., 0] * classical + shares[..., 1] * own + shares[..., 2] * surroundings

    pyramid += [own_depth[:, 0], mixed(classical_depth, own_depth, surroundings[:, :1])[:, 0]]
    distribution = mixed(jnp.pad(estimate, ((0, 0), (k, k), (0, 0), (0, 0))), own, surroundings[:, 1:])
    # Callers expect one weight per frame, so shares beyond an end are added to its frame.
    frames = distribution[:, k : k + n]
    frames = frames.at[:, 0].add(distribution[:, :k].sum(1)).at[:, -1].add(distribution[:, k + n :].sum(1))
    # A pixel that takes the depth of its surroundings has no confidence of its own.
    of_its_own = upsample(known / (known + FILL_PRIOR), height, width)[:, 0]
    if self.trusted_confidence:
      evidence = jnp.minimum(evidence / self.trusted_confidence, 1.0)
    evidence = shares[:, 0, ..., 0] * evidence + shares[:, 0, ..., 1] + shares[:, 0, ..., 2] * of_its_own
    # Where the two estimates differ, one is wrong, whichever the result follows.
    disagreement = (own_depth - classical_depth)[:, 0]
    return DepthMaps(tuple(pyramid), frames, confidence=evidence * confidence_from_spread(frames, focus, disagreement))

  def _encode(
    self, inputs: Stack, once: Float[Array, 'B 1 H W K'], luma: Float[Array, 'B N H W']
  ) -> tuple[Stack, list[Stack]]:
    """Features at the lowest resolution, and those of every level.

    Args:
      inputs: features of each frame, at full resolution.
      once: features that a pixel has once, for all frames.
      luma: luminance of the frames.
    """
    run = partial(apply_block, remat=self.remat)
    guide = ScaledConv(GUIDE_FEATURES, PLANE, name='guide_stem')(space_to_depth(once))
    guide = Residual(PLANE, name='guide')(guide)
    x = ScaledConv(FEATURES[0], PLANE, name='stem')(space_to_depth(inputs))
    skips = []
    for level, features in enumerate(FEATURES):
      if level:
        x = ScaledConv(features, PLANE, stride=2, name=f'down{level}')(nn.relu(x))
        guide = ScaledConv(GUIDE_FEATURES, PLANE, stride=2, name=f'guide_down{level}')(nn.relu(guide))
      x += ScaledConv(features, POINT, name=f'guide_in{level}')(nn.relu(guide))
      # Strong blur leaves no detail at full resolution; reduced frames still show where it is weakest.
      if level < OCTAVES:
        luma = halve(luma)
        curves, limited, _ = focus_curves(luma, level + 1)
        octave = jnp.stack([*curves, *limited], -1).astype(x.dtype)
        x += ScaledConv(features, PLANE, name=f'octave{level}')(octave)
      # Only kernels of one frame at the highest resolution: those of three frames would dominate the run time.
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'encoder{level}'), x)
      skips.append(x)
    return run(Residual(name='bottom'), x), skips

  def _decode(self, x: Stack, skips: list[Stack]) -> tuple[Stack, list[Stack]]:
    """Features at half the resolution, and the frames' scores at the three levels below it, coarse to fine."""
    run, scores = partial(apply_block, remat=self.remat), []
    for level in range(len(FEATURES) - 2, -1, -1):
      x = skips[level] + double(double(ScaledConv(FEATURES[level], POINT, name=f'up{level}')(nn.relu(x)), 2), 3)
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'decoder{level}'), x)
      if level:
        scores.append(HEAD_SCALE * ScaledConv(1, PLANE, name=f'score{level}')(nn.relu(x)))
    return x, scores

  def draw(
    self, rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
  ) -> np.ndarray:
    """Initial values, distributed as Flax's initialisers of this module; see `end_to_end.draw_variable`."""
    if path[-1] == 'kernel':
      bound = np.prod(shape[:-1]) ** -0.5
      return rng.uniform(-bound, bound, shape)
    return np.full(shape, RESIDUAL_GAIN if path[-1] == 'gain' else 0.0)


def classical_estimate(images: Float[Array, 'B N H W 3']) -> tuple[Float[Array, 'B H W'], Float[Array, 'B H W']]:
  """Frame index 0 .. N - 1 and confidence of `classical.depth_from_focus`, without gradients."""
  images = jax.lax.stop_gradient((images.astype(jnp.float32) + 1.0) / 2.0)
  return jax.lax.stop_gradient(jax.vmap(lambda stack: classical.depth_from_focus(stack, None))(images))


def estimate_features(index: Float[Array, 'B H W'], frames: int) -> tuple[Float[Array, 'B N H W'], ...]:
  """Each frame's share in a depth at this index, linear between two neighbours; then its distance from the index,
  squashed to -1 .. 1 by tanh at two scales: that of the whole sweep, and that of single frames.
  """
  difference = jnp.arange(frames, dtype=jnp.float32)[:, None, None] - index[:, None]
  share = jnp.maximum(1.0 - jnp.abs(difference), 0.0)
  return share, jnp.tanh(3.0 * difference / jnp.asarray(frames - 1, jnp.float32)), jnp.tanh(difference)


def nearest_frame(images: Float[Array, 'B N H W 3'], index: Float[Array, 'B H W']) -> Float[Array, 'B H W 3']:
  """Each pixel from the frame nearest to its index."""
  nearest = jnp.clip(jnp.round(index), 0, images.shape[1] - 1).astype(int)
  return jnp.take_along_axis(images, nearest[:, None, :, :, None], axis=1)[:, 0]


def positions_beyond(focus: Float[Array, 'B N']) -> tuple[Float[Array, 'B P'], Float[Array, 'B P']]:
  """Focus coordinates of the places before the first frame and after the last, in the order of the frames."""
  beyond = jnp.asarray(BEYOND) * (focus[:, -1:] - focus[:, :1])
  return focus[:, :1] - beyond[:, ::-1], focus[:, -1:] + beyond


def fill(value: Float[Array, 'B K H W'], weight: Float[Array, 'B 1 H W']) -> Float[Array, 'B K H W']:
  """`focus.fill` of K values with one weight 0 .. 1 and the prior `FILL_PRIOR`."""
  return push_pull(value, jnp.maximum(weight, MIN_WEIGHT), FILL_PRIOR)
