"""Training steps of the full network, for timing or only for compiling."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from benchmarks import flops
from focal_jax.config import to_config_dict
from focal_jax.losses import LossSettings, loss_settings
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.registry import make_model
from focal_jax.recipes import shipped
from focal_jax.stack import FocalStack
from focal_jax.training import parallel
from focal_jax.training.optimizer import make_optimizer, make_schedule
from focal_jax.training.step import StepSettings, TrainState, init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Option:
  """Differences from the plain step: fields of the step's settings, optimiser, model (as for `make_model`), devices."""

  settings: dict = dataclasses.field(default_factory=dict)
  clip_norm: float = 0.0
  dtype: str = 'float32'
  remat: bool = False
  kind: str = 'pmap'
  model: dict = dataclasses.field(default_factory=dict)


def refined(**fields: Any) -> Option:
  """The network that ships, with its loss."""
  config = shipped.get_config('depth_large')
  return Option({'loss': loss_settings(config.loss)}, model=config.model.to_dict(), **fields)


Shape = tuple[int, int, int, int]  # stacks, frames, height, width


def make_stack(shape: Shape) -> FocalStack:
  """A stack of noise with ground truth."""
  rng = np.random.default_rng(0)
  size, frames, height, width = shape
  return FocalStack(
    images=jnp.asarray(rng.random((*shape, 3)), jnp.float32),
    focus=jnp.tile(jnp.linspace(0, 1, frames), (size, 1)),
    fov=jnp.tile(jnp.linspace(1.04, 1, frames), (size, 1)),
    target=jnp.asarray(rng.random((size, height, width)), jnp.float32),
    valid=jnp.ones((size, height, width)),
    motion=jnp.zeros((size, frames, 3)),
  )


def _zeros_without_memory(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  """Zeros that take no memory, for compiling only."""
  return np.broadcast_to(np.zeros((), dtype), shape)


def empty_stack(shape: Shape) -> FocalStack:
  """Like `make_stack`, for any size, but empty."""
  size, frames, height, width = shape
  numbers, pictures = (
    _zeros_without_memory((size, frames), np.float32),
    _zeros_without_memory((size, height, width), np.float32),
  )
  images, motion = _zeros_without_memory((*shape, 3), np.float32), _zeros_without_memory((size, frames, 3), np.float32)
  return FocalStack(images, numbers, numbers, pictures, pictures, motion)


class StepProgram:
  """A training step on one device, not yet compiled.

  Attributes:
    function: of state and inputs, over the devices of `parallel.AXIS`.
    step: the same on the device; its inputs have a leading device axis.
  """

  def __init__(self, option: Option, shape: Shape, networks: str):
    self.shape = shape
    self.devices = parallel.Devices(option.kind, jax.local_devices()[:1])
    optimizer = to_config_dict().optimizer
    optimizer.clip_norm = option.clip_norm
    self._tx, self._schedule = make_optimizer(optimizer), make_schedule(optimizer, 1000)
    self._settings = StepSettings(**{'networks': networks, 'loss': LossSettings(), **option.settings})
    runtime = {'axis_name': parallel.AXIS, 'dtype': np.dtype(option.dtype), 'remat': option.remat}
    self._model = make_model(option.model, **runtime)
    self.function = make_train_step(self._model, self._tx, lambda keys, stack: stack, self._settings)
    self.step = self.devices.run(self.function, outputs=(False, False), training=True)

  def compile(self, state: Any, inputs: Any) -> jax.stages.Compiled:
    """Compiles for these arrays, or for their `shapes`."""
    return self.step.lower(state, inputs).compile()

  def state(self) -> Any:
    return self.devices.replicate(self._init_state(init_variables(self._model, 0)))

  def _init_state(self, variables: dict) -> TrainState:
    return init_state(variables, self._tx, self._settings, 0, self._schedule)

  def inputs(self) -> Any:
    share = (np.arange(self.shape[0], dtype=np.int32), make_stack(self.shape))
    return self.devices.share(jax.tree.map(lambda x: x[None], share))

  def shapes(self) -> tuple[Any, Any]:
    """Shapes of state and inputs, which need not fit in memory."""
    state = jax.eval_shape(self._init_state, variable_shapes(self._model))
    size = self.shape[0]
    stack = jax.tree.map(lambda x: _zeros_without_memory((1, *x.shape), x.dtype), empty_stack(self.shape))
    return state, (_zeros_without_memory((1, size), np.int32), stack)


def step_flops(option: Option, shape: Shape, networks: str) -> float:
  """Floating-point operations of the convolutions of a step."""
  program = StepProgram(option, shape, networks)
  state, inputs = program.shapes()
  inputs = jax.tree.map(lambda x: x[0], inputs)
  mesh = Mesh(np.array(jax.local_devices()[:1]), (parallel.AXIS,))
  specs = {'in_specs': PartitionSpec(), 'out_specs': PartitionSpec(), 'check_vma': False}
  return flops.count(jax.shard_map(program.function, mesh=mesh, **specs), state, inputs).convolutions


class Step:
  """A compiled step with one option. `memory_mb` is what XLA allocates in addition to the arguments.

  `compiler_options` replace those of the backend.
  """

  def __init__(
    self, option: Option, shape: Shape, networks: str, compiler_options: jax.stages.CompilerOptions | None = None
  ):
    program = StepProgram(option, shape, networks)
    self._state, self._inputs = program.state(), program.inputs()
    began = time.perf_counter()
    self._step = program.step.lower(self._state, self._inputs).compile(compiler_options)
    self.compile_s = time.perf_counter() - began
    self.memory_mb = self._step.memory_analysis().temp_size_in_bytes / 1e6

  def __call__(self) -> None:
    """Runs one step and waits for it."""
    self._state, metrics = self._step(self._state, self._inputs)
    jax.block_until_ready((self._state, metrics))
