"""Benchmark cases of the stages of the network: its modules, with inputs of the shapes that they have in the network.

The stages are recorded from a run of the network, so that they match its definition.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Networks
from benchmarks.harness import OURS, Case, compile_ahead
from benchmarks.settings import shape_text
from focal_jax.models.blocks import expected_focus, focus_distribution, upsample

Call = tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]  # unbound; shapes of the arrays; options; shapes returned


def record(network: nn.Module, variables: dict, stack: Any) -> dict[tuple[str, str], Call]:
  """Calls of the modules of depth and alignment network, by (network, module), in their order."""
  calls = {}

  def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

  def intercept(function, arrays, options, context):
    result, module = function(*arrays, **options), context.module
    if context.method_name == '__call__' and len(module.path) == 2:
      calls[module.path] = (module.clone(parent=None), shapes(arrays), dict(options), shapes(result))
    return result

  with nn.intercept_methods(intercept):
    jax.eval_shape(lambda variables, stack: jax.tree.leaves(network.apply(variables, stack)), variables, stack)
  return calls


def random_arrays(shapes: tuple[Any, ...]) -> tuple[Any, ...]:
  """Noise for stacks; a field of view and a small motion for arrays with fewer axes."""
  rng = np.random.default_rng(0)

  def make(x):
    if len(x.shape) >= 4:
      return jnp.asarray(rng.normal(size=x.shape), x.dtype)
    return jnp.ones(x.shape, x.dtype) if len(x.shape) == 2 else jnp.zeros(x.shape, x.dtype)

  return jax.tree.map(make, shapes)


def forward(module: nn.Module, options: dict[str, Any]) -> Callable:
  return lambda variables, *arrays: module.apply(variables, *arrays, **options)


def gradient(module: nn.Module, options: dict[str, Any]) -> Callable:
  """Forward pass in training, and gradients with respect to parameters and stacks; not to the images, which training
  does not need.
  """

  def function(variables, *arrays):
    kept = [i for i, x in enumerate(arrays) if x is not None and x.ndim >= 4 and x.shape[-1] != 3]

    def apply(params, *stacks):
      given = list(arrays)
      for i, stack in zip(kept, stacks, strict=True):
        given[i] = stack
      return module.apply(
        variables | {'params': params}, *given, **(options | {'train': True} if 'train' in options else options),
        mutable=['batch_stats'],
      )  # fmt: skip

    result, pull, updates = jax.vjp(apply, variables['params'], *(arrays[i] for i in kept), has_aux=True)
    return pull(jax.tree.map(jnp.ones_like, result)), updates

  return function


def regress(scores: list[Any], focus: Any, height: int, width: int) -> list[Any]:
  """Depth from scores, which the depth network computes outside of its modules."""
  return [expected_focus(focus_distribution(upsample(score[..., 0], height, width)), focus) for score in scores]


def stages(networks: Networks, train: bool = False) -> list[Case]:
  """Cases of the stages: forward, or with `train` forward and backward for two stacks, as in a training step."""
  part, settings = ('stages_train' if train else 'stages'), networks.settings
  shape = settings.shape(2 if train else 1)
  stack = networks.stack(shape)
  theirs = networks.peer.stages(stack) if networks.peer else {}
  cases, scores = [], []
  for path, (module, shapes, options, result) in record(networks.network, networks.variables, stack).items():
    name = '.'.join(path)
    variables = {
      collection: tree[path[0]][path[1]]
      for collection, tree in networks.variables.items()
      if path[1] in tree.get(path[0], {})
    }
    arrays, function = random_arrays(shapes), (gradient if train else forward)(module, options)
    arguments = (variables, *arrays)
    work, least = networks.cost(function, *arguments)
    text = ' '.join(shape_text(x.shape) for x in shapes if x is not None and len(x.shape) > 3)
    prepare = functools.partial(compile_ahead, function, *arguments, training=train)
    cases.append(Case(part, name, OURS, text, prepare, work, least))
    if name in theirs:
      cases += _peer_cases(networks, (part, name, text), theirs[name], train, flops=work, bytes=least)
    if path[0] == 'depth' and path[1].startswith('score'):
      scores.append(result)
  if not train:
    arguments = (list(random_arrays(tuple(scores))), stack.focus)
    function = lambda scores, focus: regress(scores, focus, *shape[2:])  # noqa: E731
    _, least = networks.cost(function, *arguments)
    prepare = functools.partial(compile_ahead, function, *arguments)
    cases.append(Case(part, 'depth.regression', OURS, f'4 of {shape_text(shape)}', prepare, bytes=least))
  return cases


def _peer_cases(networks: Networks, names: tuple[str, str, str], stage: Any, train: bool, **work: float) -> list[Case]:
  peer, (module, shapes) = networks.peer, stage
  rng = np.random.default_rng(0)

  def make(module):
    inputs = [None if s is None else peer.tensor(rng.normal(size=s).astype(np.float32)) for s in shapes]
    if not train:
      return peer.forward(module, *inputs)
    for x in inputs:
      if x is not None and x.shape[1] != 3:
        x.requires_grad_(True)
    return peer.gradient(module, inputs)

  return peer.cases(*names, make, module, **work)
