"""Benchmark cases of the whole networks and of the warp, for this project and PyTorch."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops
from benchmarks.harness import OURS, Case, compile_ahead, min_traffic, size_in_bytes
from benchmarks.settings import Settings, multiple_of_32, shape_text
from benchmarks.training import Option, Step, StepProgram, empty_stack, make_stack, refined, step_flops
from focal_jax import warp
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.published import INPUT_CONVENTION
from focal_jax.models.registry import make_model
from focal_jax.prediction.network_predictor import NetworkPredictor
from focal_jax.recipes import shipped
from focal_jax.stack import FocalStack


class Networks:
  """Our network as published, with motion from full resolution, and its PyTorch version with the same weights, if
  available; and the network that ships, with random weights.

  Args:
    variables: of the published network. None: PyTorch's, if available, or random ones.

  Attributes:
    peer: None without PyTorch.
  """

  def __init__(self, settings: Settings, variables: dict | None = None):
    self.settings, self.peer = settings, None
    self.network = make_model(INPUT_CONVENTION, dtype=np.dtype(settings.dtype))
    self.shipped = make_model(shipped.get_config().model.to_dict(), dtype=np.dtype(settings.dtype))
    if variables is not None:
      self.variables = jax.device_put(variables)
    elif settings.peer and settings.torch:
      from benchmarks.peer import Peer

      self.peer = Peer(settings)
      self.variables = jax.device_put(self.peer.variables(variable_shapes(self.network)))
    else:
      self.variables = init_variables(self.network, 0)

  def stack(self, shape: tuple[int, int, int, int]) -> FocalStack:
    """A network's input, without ground truth."""
    return make_stack(shape).replace(target=None, valid=None, motion=None)

  def cost(self, function: Callable, *arguments: Any) -> tuple[float | None, float | None]:
    """FLOPs of the convolutions of function(*arguments), and least bytes; None where costs are not counted."""
    if not self.settings.counted:
      return None, None
    return flops.count(function, *arguments).convolutions, min_traffic(function, *arguments)

  def agreement(self) -> dict[str, float]:
    """Largest absolute difference of D4 from PyTorch's, with and without alignment; the focus runs from 0 to 1."""
    found, stack = {}, self.stack(self.settings.shape())
    for name, align in (('end to end', True), ('depth network', False)):
      ours = jax.jit(lambda v, s, align=align: self.network.apply(v, s, align=align).depth)(self.variables, stack)
      found[name] = float(np.abs(np.asarray(ours) - self.peer.depth(stack, align)).max())
    return found


def forward_cases(
  part: str, name: str, networks: Networks, shape: tuple[int, int, int, int], align: bool
) -> list[Case]:
  """Cases of one prediction, from device arrays to device arrays."""
  variables, stack = networks.variables, networks.stack(shape)

  def predict(variables, stack):
    return networks.network.apply(variables, stack, align=align)

  cases = [_case(part, name, networks, shape, predict, variables, stack)]
  if networks.peer:
    inputs = networks.peer.inputs(stack)
    cases += networks.peer.cases(
      part,
      name,
      cases[0].shape,
      lambda model: networks.peer.forward(model, *inputs, align=align),
      flops=cases[0].flops,
      bytes=cases[0].bytes,
    )
  return cases


def _shipped_case(part: str, name: str, networks: Networks, shape: tuple[int, int, int, int], align: bool) -> Case:
  """A case of one prediction by the network that ships."""
  shapes = variable_shapes(networks.shipped)

  def predict(variables, stack):
    return networks.shipped.apply(variables, stack, align=align)

  def prepare():
    return compile_ahead(predict, init_variables(networks.shipped, 0), networks.stack(shape))

  case = _case(part, name, networks, shape, predict, shapes, empty_stack(shape))
  return dataclasses.replace(case, prepare=prepare)


def _case(
  part: str, name: str, networks: Networks, shape: tuple[int, ...], function: Callable, *arguments: Any
) -> Case:
  """A case of our implementation: a function of arrays."""
  work, least = networks.cost(function, *arguments)
  return Case(part, name, OURS, shape_text((*shape, 3)), lambda: compile_ahead(function, *arguments), work, least)


def _host_case(part: str, networks: Networks, align: str) -> Case:
  """A case of `focal_jax.load().predict`: uint8 on the host to arrays on the host."""
  settings = networks.settings
  model = NetworkPredictor('benchmark', networks.network, networks.variables, {}, [])
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (*settings.shape()[1:], 3), np.uint8)
  focus, fov = np.linspace(0, 1, settings.frames), np.linspace(1.04, 1, settings.frames)

  def call():
    model.predict(images, focus, fov, align=align)

  def prepare():
    call()  # compiles
    return call

  return Case(part, 'predict, host to host', OURS, shape_text(images.shape), prepare)


def inference(networks: Networks) -> list[Case]:
  shape = networks.settings.shape()
  cases = forward_cases('inference', 'end to end', networks, shape, align=True)
  cases.append(_shipped_case('inference', 'shipped networks, end to end', networks, shape, align=True))
  return [*cases, _host_case('inference', networks, align='network')]


def depth(networks: Networks) -> list[Case]:
  shape = networks.settings.shape()
  cases = forward_cases('depth', 'depth network', networks, shape, align=False)
  cases.append(_shipped_case('depth', 'refined', networks, shape, align=False))
  return [*cases, _host_case('depth', networks, align='off')]


def alignment(networks: Networks) -> list[Case]:
  shape, name = networks.settings.shape(), 'motion of the frames'
  stack = networks.stack(shape)

  def estimate(variables, stack):
    return networks.network.apply(variables, stack, method='estimate_motion')

  cases = [_case('alignment', name, networks, shape, estimate, networks.variables, stack)]
  if networks.peer:
    images, _, fov = networks.peer.inputs(stack)
    cases += networks.peer.cases(
      'alignment',
      name,
      cases[0].shape,
      lambda model: networks.peer.forward(model, images, fov),
      networks.peer.model.optical_flow_aggregation,
      flops=cases[0].flops,
      bytes=cases[0].bytes,
    )
  return cases


def train_step(networks: Networks) -> Iterator[list[Case]]:
  """Cases of training steps, one network at a time: forward, backward and Adam for two stacks. The shipped depth
  network has no peer.
  """
  settings = networks.settings
  shape, plain = settings.shape(batch=2), Option(dtype=settings.dtype)
  for name, option, trained in (
    ('depth network', plain, 'depth'),
    ('both networks', plain, 'both'),
    ('refined', refined(dtype=settings.dtype), 'depth'),
  ):
    work = least = None
    if settings.counted:
      shapes, work = StepProgram(option, shape, trained).shapes(), step_flops(option, shape, trained)
      least = size_in_bytes(shapes, shapes[0])
    prepare = functools.partial(Step, option, shape, trained)
    cases = [Case('train_step', name, OURS, shape_text((*shape, 3)), prepare, work, least)]
    if networks.peer and option is plain:
      make = functools.partial(networks.peer.training_step, stack=make_stack(shape), align=trained == 'both')
      # For two stacks PyTorch chooses oneDNN by itself.
      labels = networks.peer.plain
      cases += networks.peer.cases('train_step', name, cases[0].shape, make, labels=labels, flops=work, bytes=least)
    yield cases


def warps(networks: Networks) -> list[Case]:
  """Cases of the warp of the frames, and of 8-channel features, in float32. Gradients are with respect to stack and
  motion.
  """
  batch, frames, height, width = networks.settings.shape()
  rng, cases = np.random.default_rng(0), []
  fov = jnp.linspace(1.04, 1, frames)[None]
  motion = jnp.asarray(rng.normal(size=(batch, frames, 3)) * [0.003, 2.0, 2.0], jnp.float32)

  def gradient(stack, fov, motion, cotangent):
    return jax.vjp(lambda stack, motion: warp.warp(stack, fov, motion), stack, motion)[1](cotangent)

  for channels, what in ((3, 'frames'), (8, 'features')):
    shape = (batch, frames, height, width, channels)
    stack = jnp.asarray(rng.random(shape), jnp.float32)
    size = size_in_bytes(stack)
    for name, function, arguments, least in (
      (what, warp.warp, (stack, fov, motion), 2 * size),
      (f'{what}, gradient', gradient, (stack, fov, motion, jnp.ones(shape)), 3 * size),
    ):
      prepare = functools.partial(compile_ahead, function, *arguments)
      cases.append(Case('warp', name, OURS, shape_text(shape), prepare, bytes=least))
      if networks.peer:
        wants = function is gradient
        tensors = [networks.peer.tensor(x) for x in (np.asarray(stack).transpose(0, 4, 1, 2, 3), fov, motion)]
        for tensor in (tensors[0], tensors[2]):
          tensor.requires_grad_(wants)
        call = networks.peer.warp(*tensors, gradient=wants)
        prepare = functools.partial(lambda call: call, call)
        cases += [Case('warp', name, label, shape_text(shape), prepare, bytes=least) for label in networks.peer.plain]
  return cases


def scaling_lines(settings: Settings) -> dict[str, list[tuple[int, tuple[int, int, int, int]]]]:
  """Shapes to predict, by the dimension that grows, each with its value; all include the shape set by the flags."""
  _, frames, height, width = settings.shape()
  counts = sorted({max(round(frames * share), 2) for share in (0.3, 0.5, 1.0, 1.5)})
  sides = sorted({multiple_of_32(height * share) for share in (4 / 7, 1.0, 10 / 7)})
  return {
    'frames': [(count, (1, count, height, width)) for count in counts],
    'height, px': [(side, (1, frames, side, multiple_of_32(side * width / height))) for side in sides],
    'batch': [(batch, settings.shape(batch)) for batch in (1, 2, 4)],
  }


def scaling(networks: Networks) -> Iterator[list[Case]]:
  """End-to-end cases, one shape at a time, named by shape."""
  shapes = {shape for line in scaling_lines(networks.settings).values() for _, shape in line}
  for shape in sorted(shapes):
    text = shape_text(shape)
    cases = forward_cases('scaling', text, networks, shape, align=True)
    yield [*cases, _shipped_case('scaling', f'{text}, shipped networks', networks, shape, align=True)]
