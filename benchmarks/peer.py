"""Benchmark cases of the network's PyTorch version. Imports PyTorch; the rest of the benchmark does not."""

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from benchmarks import torch_peer
from benchmarks.contenders import KEPT
from benchmarks.harness import Call, Case
from benchmarks.settings import Settings
from focal_jax.models import published
from focal_jax.models.torch_file import read_state_dict
from focal_jax.stack import FocalStack

Variant = Callable[[nn.Module], nn.Module]


def _normalised(model: nn.Module) -> nn.Module:
  """The model with running averages from noise: with initial ones the signal would vanish on its way through the
  network.
  """
  norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
  for momentum in (1.0, 0.1):
    for norm in norms:
      norm.momentum = momentum
    if momentum == 1.0:
      with torch.no_grad():
        model.train()(torch.rand(2, 3, 4, 64, 64) * 2 - 1, torch.rand(2, 4), torch.ones(2, 4))
  return model


class Peer:
  """The network with random weights, on the GPU if both JAX and PyTorch have it.

  Attributes:
    plain: implementations with PyTorch's own choices.
    variants: how the model of each implementation is made.
  """

  def __init__(self, settings: Settings):
    self._settings = settings
    self.device = 'cuda' if jax.default_backend() == 'gpu' and torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    self.model = _normalised(torch_peer.EndToEnd()).eval().to(self.device)
    self.plain = ['PyTorch eager', *(['PyTorch eager' + KEPT] if self.device == 'cpu' else [])]
    self.variants = self._variants()

  def _variants(self) -> dict[str, Variant]:
    variants = dict.fromkeys(self.plain, lambda model: model)
    if self.device == 'cuda':
      variants['PyTorch channels last'] = lambda model: model.to(memory_format=torch.channels_last_3d)
    elif self._settings.dtype == 'float32':
      variants |= dict.fromkeys(('PyTorch oneDNN', 'PyTorch oneDNN' + KEPT), torch_peer.use_onednn)
    if self._settings.compile_peer:
      for label, variant in list(variants.items()):
        if label.endswith(KEPT):
          continue
        name = label.replace(' eager', '') + ' compile'
        variants[name] = lambda model, variant=variant: torch.compile(variant(model))
    return variants

  def variables(self, template: dict) -> dict:
    """The same weights as variables of our network."""
    with tempfile.TemporaryDirectory() as folder:
      path = Path(folder) / 'weights.pth'
      torch.save(self.model.state_dict(), path)
      tensors = read_state_dict(path)
      return published.variables_from(path, tensors, published.identify(path, tensors), template)[0]

  def tensor(self, array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array), device=self.device)

  def inputs(self, stack: FocalStack) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack [B, 3, N, H, W] as expected by the published weights, focus and fov [B, N]."""
    images = 2 * np.asarray(stack.images)[..., ::-1] - 1
    return (
      self.tensor(np.ascontiguousarray(images.transpose(0, 4, 1, 2, 3))),
      self.tensor(stack.focus),
      self.tensor(stack.fov),
    )

  def depth(self, stack: FocalStack, align: bool) -> np.ndarray:
    """The depth map D4."""
    with torch.no_grad(), self._precision():
      return self.model(*self.inputs(stack), align=align).pyramid[-1].float().cpu().numpy()

  def wait(self) -> None:
    if self.device == 'cuda':
      torch.cuda.synchronize()

  def _precision(self) -> contextlib.AbstractContextManager:
    if self._settings.dtype == 'float32':
      return contextlib.nullcontext()
    return torch.autocast(self.device, getattr(torch, self._settings.dtype))

  def cases(
    self,
    part: str,
    name: str,
    shape: str,
    make: Callable[[nn.Module], Call],
    module: nn.Module | None = None,
    labels: Sequence[str] = (),
    **work: Any,
  ) -> list[Case]:
    """A case for each variant of the network, or of one of its modules; `make` takes a copy and returns the function to
    call. `labels`: of the variants; all by default.
    """

    def prepare(label, variant):
      call = make(variant(copy.deepcopy(module or self.model)))
      if label.endswith('compile'):
        call()  # compiles
      return call

    return [
      Case(
        part,
        name,
        label,
        shape,
        lambda label=label, variant=variant: prepare(label, variant),
        optional=label.endswith('compile'),
        **work,
      )
      for label, variant in self.variants.items()
      if label in (labels or self.variants)
    ]

  def forward(self, model: nn.Module, *inputs: Any, **options: Any) -> Call:
    def call():
      with torch.no_grad(), self._precision():
        model(*inputs, **options)
      self.wait()

    return call

  def gradient(self, module: nn.Module, inputs: Sequence[Any]) -> Call:
    """Forward and backward pass of a module in training, including gradients of the inputs that require one."""
    module.train()

    def call():
      with self._precision():
        outputs = module(*inputs)
      outputs = outputs if isinstance(outputs, tuple) else (outputs,)
      torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
      for x in (*module.parameters(), *inputs):
        if x is not None:
          x.grad = None
      self.wait()

    return call

  def training_step(self, model: nn.Module, stack: FocalStack, align: bool) -> Call:
    """A training step with Adam, of both networks or, without `align`, of the depth network."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    inputs, target, valid = self.inputs(stack), self.tensor(stack.target), self.tensor(stack.valid)

    def call():
      optimizer.zero_grad()
      with self._precision():
        pyramid = model(*inputs, align=align).pyramid
      torch_peer.training_loss(pyramid, target, valid).backward()
      optimizer.step()
      self.wait()

    return call

  def warp(self, stack: torch.Tensor, fov: torch.Tensor, motion: torch.Tensor, gradient: bool) -> Call:
    """The warp; with `gradient`, also its gradient with respect to stack and motion."""

    def call():
      with torch.set_grad_enabled(gradient):
        warped = torch_peer.warp(stack, torch_peer.displacement_field(fov, motion, *stack.shape[-2:]))
      if gradient:
        torch.autograd.grad(warped, (stack, motion), torch.ones_like(warped))
      self.wait()

    return call

  def stages(self, stack: FocalStack) -> dict[str, tuple[nn.Module, list[tuple[int, ...] | None]]]:
    """Modules by the names of ours, and the shapes of their inputs for this stack."""
    modules: dict[str, list[str]] = {}
    for ours, theirs in published.module_names().items():
      modules.setdefault('.'.join(ours.split('.')[:2]), []).append(theirs.replace('.', '/'))
    found, hooks = {}, []
    for name, theirs in modules.items():
      if name.startswith('alignment.head'):
        continue  # their module does not include the warp
      module = self.model.get_submodule(os.path.commonpath(theirs).replace('/', '.'))

      def record(module, inputs, name=name):
        found[name] = (module, [None if x is None else tuple(x.shape) for x in inputs])

      hooks.append(module.register_forward_pre_hook(record))
    self.depth(stack, align=True)
    for hook in hooks:
      hook.remove()
    return found
