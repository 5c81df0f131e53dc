"""The published augmentation, on the device, with the same random parameters for a whole stack (Won and Jeon, section
4).
"""

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Key, PRNGKeyArray

from focal_jax.stack import FocalStack

CONTRAST, BRIGHTNESS, GAMMA = (0.4, 1.6), (-0.1, 0.1), (0.5, 2.0)


def augment_batch(keys: Key[Array, 'B'], stack: FocalStack) -> FocalStack:
  """Augments each stack of a batch with its own key; images are float 0 .. 1 and square."""
  return jax.vmap(augment)(keys, stack)


def augment(key: PRNGKeyArray, stack: FocalStack) -> FocalStack:
  """Changes contrast (about 0.5), brightness and gamma of the frames and the all-in-focus image; flips and rotates them
  by multiples of 90 degrees, together with target, valid mask and true motion. Motion and all-in-focus image may be
  None.
  """
  keys = random.split(key, 5)
  contrast, brightness, gamma = (
    random.uniform(k, minval=low, maxval=high)
    for k, (low, high) in zip(keys, (CONTRAST, BRIGHTNESS, GAMMA), strict=False)
  )

  def develop(images):
    # The floor keeps value and gradient of the gamma finite at black.
    return jnp.clip((images - 0.5) * contrast + 0.5 + brightness, 1e-6, 1.0) ** gamma

  turns = random.randint(keys[3], (), 0, 4)
  flip_rows, flip_columns = random.bernoulli(keys[4], 0.5, (2,))

  def move(x, axes):
    branches = [lambda x, k=k: jnp.rot90(x, k, axes) for k in range(4)]
    x = jax.lax.switch(turns, branches, x)
    x = jnp.where(flip_rows, jnp.flip(x, axes[0]), x)
    return jnp.where(flip_columns, jnp.flip(x, axes[1]), x)

  def move_motion(motion):
    # Rotating by 90 degrees counter-clockwise turns x into -y, and y into x.
    branches = [lambda b, c: (b, c), lambda b, c: (c, -b), lambda b, c: (-b, -c), lambda b, c: (-c, b)]
    beta, gamma = jax.lax.switch(turns, branches, motion[:, 1], motion[:, 2])
    beta, gamma = jnp.where(flip_columns, -beta, beta), jnp.where(flip_rows, -gamma, gamma)
    return jnp.stack([motion[:, 0], beta, gamma], axis=-1)

  return stack.replace(
    images=move(develop(stack.images), (1, 2)),
    target=move(stack.target, (0, 1)),
    valid=move(stack.valid, (0, 1)),
    motion=None if stack.motion is None else move_motion(stack.motion),
    all_in_focus=None if stack.all_in_focus is None else move(develop(stack.all_in_focus), (0, 1)),
  )
