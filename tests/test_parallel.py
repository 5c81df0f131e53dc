"""One global batch on one device and on two: the same step, although valid pixels are spread unevenly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from focal_jax import parallel

ROOT = Path(__file__).parents[1]

# A network with a convolution, batch normalisation and a motion, small enough to compile in a second. The optimiser is
# plain SGD: Adam would hide a gradient of the wrong scale.
SCRIPT = """
import json
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from focal_jax import parallel
from focal_jax.stack import FocalStack, Prediction

class Toy(nn.Module):
  axis_name: str | None = None

  @nn.compact
  def __call__(self, stack, *, align=True, train=False):
    x = nn.Conv(4, (3, 3))(stack.images)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
    weights = nn.softmax(nn.Dense(1)(nn.relu(x))[..., 0], axis=1)
    depth = jnp.einsum('bnhw,bn->bhw', weights, stack.focus)
    motion = nn.Dense(3)(x.mean((2, 3)))
    ones = jnp.ones(depth.shape)
    return Prediction(depth, ones, (depth,) * 4, weights, stack.images, jnp.ones(weights.shape), motion)

rng = np.random.default_rng(0)
b, n, h, w = 4, 3, 8, 8
valid = np.zeros((b, h, w), np.float32)
valid[0], valid[1, :2], valid[2, 0, :3] = 1, 1, 1
normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
stack = FocalStack(
  images=rng.random((b, n, h, w, 3)).astype(np.float32), focus=np.sort(rng.random((b, n)).astype(np.float32), -1),
  fov=np.ones((b, n), np.float32), target=normal(b, h, w), valid=valid, motion=normal(b, n, 3),
)
variables = Toy().init(jax.random.key(0), stack)
tx = optax.sgd(0.1)
devices = jax.local_device_count()
inputs = jax.tree.map(lambda x: x.reshape(devices, b // devices, *x.shape[1:]), stack)
step = parallel.make_train_step(
  Toy(axis_name=parallel.AXIS), tx, lambda key, inputs: inputs, 0, (0.3, 0.5, 0.7, 1.0), 0.1, 'both')
state = parallel.init_state(variables, tx)
for _ in range(3):
  state, metrics = step(state, inputs)
  metrics = jax.device_get(metrics)
leaves = [np.asarray(x).ravel().tolist() for x in jax.tree.leaves((state.params, state.batch_stats, metrics))]
print(json.dumps({'devices': devices, 'leaves': leaves}))
"""


def run(devices):
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  result = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  output = json.loads(result.stdout)
  assert output['devices'] == devices
  return output['leaves']


def test_two_devices_take_the_step_of_one():
  for one, two in zip(run(1), run(2), strict=True):
    np.testing.assert_allclose(two, one, atol=1e-5)


def test_inputs_are_sent_two_ahead_and_come_in_order():
  asked = []

  def source():
    for index in range(5):
      asked.append(index)
      yield {'x': np.full((jax.local_device_count(), 3), index, np.uint8)}

  inputs = parallel.ahead(source())
  for index in range(5):
    one = next(inputs)
    assert len(asked) == min(index + 2, 5)
    assert isinstance(one['x'], jax.Array)
    assert one['x'].sharding.device_set == set(jax.local_devices())
    np.testing.assert_array_equal(one['x'], np.full((jax.local_device_count(), 3), index))
  assert next(inputs, None) is None
