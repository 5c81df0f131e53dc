"""Cost of each network for predicting an aligned stack: parameters, operations, memory, time.

python -m benchmarks.networks --shape=10,224,224 --rounds=3
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from focal_jax.recipes.ablations.networks import NETWORKS

from benchmarks import flops
from benchmarks.harness import OURS, Case, measure
from benchmarks.settings import shape_text
from benchmarks.summary import median_and_range
from focal_jax.backend import compiler_options, use_compilation_cache
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.registry import make_model
from focal_jax.stack import FocalStack

_SHAPE = flags.DEFINE_list('shape', ['10', '224', '224'], 'Frames, height and width, multiples of 32 px.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each network.')


def networks() -> dict[str, dict]:
  """Label -> the `depth` section of the model: as published, and in the sizes of the comparison."""
  small = {label: depth for label, (depth, _) in NETWORKS.items()}
  whole = {label.partition(' /')[0]: depth | {'channel_divisor': 1} for label, depth in small.items() if '/' in label}
  return {label: small.pop(label) for label in ('Won and Jeon', 'curves', 'refined')} | whole | small


class Candidate:
  """A compiled prediction of depth only, and its cost."""

  def __init__(self, depth: dict, stack: FocalStack):
    network = make_model({'depth': depth, 'align': {'name': 'none'}})

    def predict(variables, stack):
      return network.apply(variables, stack, align=False).depth

    shapes = variable_shapes(network)
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
    counted = flops.count(predict, shapes, stack)
    self.gflop = (counted.convolutions + counted.products) / 1e9
    self._inputs = jax.device_put((init_variables(network, 0), stack))
    self._predict = jax.jit(predict, compiler_options=compiler_options()).lower(*self._inputs).compile()
    self.temporary_mb = self._predict.memory_analysis().temp_size_in_bytes / 2**20

  def __call__(self) -> None:
    """Predicts once and waits for the result."""
    self._predict(*self._inputs).block_until_ready()


def main(argv: list[str]) -> None:
  del argv
  use_compilation_cache()
  frames, height, width = map(int, _SHAPE.value)
  rng = np.random.default_rng(0)
  stack = FocalStack(
    images=jnp.asarray(rng.random((1, frames, height, width, 3)), jnp.float32),
    focus=jnp.linspace(1, 0, frames)[None],
    fov=jnp.ones((1, frames)),
  )
  candidates = {label: Candidate(depth, stack) for label, depth in networks().items()}
  size = shape_text(stack.images.shape)
  cases = [Case('networks', label, OURS, size, lambda one=one: one) for label, one in candidates.items()]
  results = measure(cases, _ROUNDS.value)
  print(f'{size}, float32, {jax.devices()[0]}, jax {jax.__version__}')
  print('| network | parameters, million | GFLOP | working memory, MB | s a stack (range) |')
  print('| --- | ---: | ---: | ---: | ---: |')
  for result in results:
    label, one = result.case.name, candidates[result.case.name]
    print(
      f'| {label} | {one.parameters / 1e6:.2f} | {one.gflop:.1f} | {one.temporary_mb:.0f} '
      f'| {median_and_range(result.seconds, 2)} |'
    )


if __name__ == '__main__':
  app.run(main)
