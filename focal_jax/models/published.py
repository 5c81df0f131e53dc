"""Published weights: identifies the network of a state dict and maps its tensors to this project's.

State dicts use the module names of the authors' code. The mapping for Won and Jeon's network is here (`DFF_net.*` is
the depth network, `optical_flow_aggregation.*` the alignment network); those of the other networks are in the networks'
modules.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from focal_jax.errors import InputError
from focal_jax.models import aifdepthnet, defocusnet, dfv

# Input format that Won and Jeon's weights expect (`end_to_end.EndToEnd`).
INPUT_CONVENTION = {'channels': 'BGR', 'padding': 'black'}

# 'data' in the description of published weights, instead of the sources of a training run of this project.
DATA_OF_PUBLISHED = 'published'

# Tensors of PyTorch's batch normalisation that are not used here.
_IGNORED_SUFFIX = '.num_batches_tracked'


def _cell(ours: str, theirs: str) -> dict[str, str]:
  """A convolution and its batch normalisation, which lie at .0 and .1 of a sequence."""
  return {f'{ours}.conv': f'{theirs}.0', f'{ours}.norm': f'{theirs}.1'}


def module_names() -> dict[str, str]:
  """Our module path -> published module path, for every module with parameters."""
  depth = {
    **_cell('stem', 'FM_measure.Focus_extraction.0'),
    **_cell('head0', 'confidence.0'),
    'score0': 'confidence.2',
    **_cell('fuse1', 'dres0.0'),
    **_cell('fuse2', 'dres0.2'),
    'aggregation.down16': 'SPP_module.conv1',
    'aggregation.down32': 'SPP_module.conv3',
    **_cell('aggregation.combine16', 'SPP_module.combine1.0'),
    **_cell('aggregation.combine32', 'SPP_module.combine2.0'),
    **_cell('aggregation.refine16', 'SPP_module.conv2.0'),
    **_cell('aggregation.refine32', 'SPP_module.conv4.0'),
    **_cell('aggregation.up16', 'SPP_module.conv8'),
    **_cell('aggregation.up8', 'SPP_module.conv9'),
    **_cell('aggregation.skip16', 'SPP_module.redir2'),
    **_cell('aggregation.skip8', 'SPP_module.redir1'),
  }
  for ours, theirs in (
    ('detect1', 'FM_measure.Focus_extraction.2'),
    ('detect2', 'FM_conv1.1'),
    ('detect3', 'FM_conv2.1'),
  ):
    depth |= _cell(f'{ours}.plane1', f'{theirs}.Focus_Measure.conv.0')
    depth |= _cell(f'{ours}.plane2', f'{theirs}.Focus_Measure.conv.2')
    depth |= {f'{ours}.attention1': f'{theirs}.N_ch_attention.0', f'{ours}.attention2': f'{theirs}.N_ch_attention.2'}
  for ours, theirs in (('down2', 'FM_conv1.0'), ('down3', 'FM_conv2.0')):
    depth |= _cell(f'{ours}.strided', f'{theirs}.stride_conv') | _cell(f'{ours}.pooled', f'{theirs}.max_pooling.1')
  for scale in (8, 16, 32):
    ours, theirs = f'aggregation.pyramid{scale}', f'SPP_module.dres{scale}'
    depth |= _cell(f'{ours}.conv1', f'{theirs}_0.0') | _cell(f'{ours}.conv2', f'{theirs}_0.2')
    depth |= _cell(f'{ours}.residual1', f'{theirs}_1.0') | _cell(f'{ours}.residual2', f'{theirs}_1.2')
  for level in (1, 2, 3):
    depth |= _cell(f'up{level}', f'deconv_{level}') | {f'score{level}': f'classif{level}.0'}
    ours, theirs = f'hourglass{level}', f'dres{level + 1}'
    for name, sequence in (
      *(('first', 'conv0.0'), ('down2', 'conv1.0'), ('half', 'conv2'), ('down4', 'conv3.0')),
      *(('quarter', 'conv4.0'), ('up2', 'conv5'), ('up1', 'conv6')),
    ):
      depth |= _cell(f'{ours}.{name}', f'{theirs}.{sequence}')

  alignment = {}
  for level, features in enumerate(('OF_feature', 'OF_feature1', 'OF_feature2')):
    for block, letter in enumerate('ab'):
      ours, theirs = f'features{level}{letter}', f'{features}.{block}'
      alignment |= _cell(f'{ours}.conv1', f'{theirs}.conv.0') | _cell(f'{ours}.conv2', f'{theirs}.conv.2')
      alignment |= {f'{ours}.shortcut': f'{theirs}.feature'}
    head = f'conv{3 - level}'
    for i in (1, 2, 3):
      alignment |= _cell(f'head{level}.conv{i}', f'{head}.{2 * i - 2}')
    alignment |= {f'head{level}.motion': f'{head}.6'}

  return {f'depth.{ours}': f'DFF_net.{theirs}' for ours, theirs in depth.items()} | {
    f'alignment.{ours}': f'optical_flow_aggregation.{theirs}' for ours, theirs in alignment.items()
  }


@dataclasses.dataclass(frozen=True)
class Published:
  """A network with published weights.

  Attributes:
    name: name of the depth network in `registry.DEPTH`.
    model: its description (`registry.ModelSettings`), including the published input format.
    modules: our module path -> theirs, for every module with parameters.
    is_transposed: whether our module is a transposed convolution; PyTorch stores their kernels as (in, out, ...),
      others as (out, in, ...).
  """

  name: str
  model: dict[str, Any]
  modules: dict[str, str]
  is_transposed: Callable[[str], bool] = lambda module: False

  @property
  def probe(self) -> str:
    """A tensor that no other network has."""
    return f'{next(iter(self.modules.values()))}.weight'


def _is_transposed(module: str) -> bool:
  return module.endswith('.conv') and module.split('.')[-2].startswith('up')


def _baseline(name: str, file: Any) -> Published:
  modules = {f'depth.{ours}': theirs for ours, theirs in file.published_modules().items()}
  is_transposed = getattr(file, 'is_transposed', lambda module: False)
  model = file.PUBLISHED | {'align': {'name': 'none'}}
  return Published(name, model, modules, lambda module: is_transposed(module.removeprefix('depth.')))


def published_networks() -> list[Published]:
  return [
    Published('won_jeon', INPUT_CONVENTION, module_names(), _is_transposed),
    _baseline('defocusnet', defocusnet),
    _baseline('aifdepthnet', aifdepthnet),
    _baseline('dfv', dfv),
  ]


def identify(path: str | Path, tensors: Mapping[str, np.ndarray]) -> Published:
  """The network that a state dict belongs to.

  Args:
    path: the file, for messages.
    tensors: its tensors by name.

  Raises:
    InputError: no known network has these tensors.
  """
  networks = published_networks()
  for network in networks:
    if network.probe in tensors:
      return network
  probes = ', '.join(f'{network.probe!r} ({network.name})' for network in networks)
  raise InputError(f'{path}: {len(tensors)} tensors of no network that is known here, expected one of {probes}')


def variables_from(
  path: str | Path, tensors: Mapping[str, np.ndarray], network: Published, template: dict
) -> tuple[dict, list[str]]:
  """Variables of our network from a published state dict.

  Args:
    path: the file, for messages.
    tensors: its tensors by name (`torch_file.read_state_dict`).
    network: the network they belong to (`identify`).
    template: variables with the expected tree and shapes (arrays or shape structs), as returned by `variable_shapes`.

  Returns:
    The variables {'params', 'batch_stats'}, float32, and the names of the file's tensors that the network does not use.

  Raises:
    InputError: a tensor is missing or has another shape.
  """
  names = {
    ('params', 'kernel'): 'weight',
    ('params', 'scale'): 'weight',
    ('params', 'bias'): 'bias',
    ('batch_stats', 'mean'): 'running_mean',
    ('batch_stats', 'var'): 'running_var',
  }
  variables, used = {}, set()
  for key, leaf in flax.traverse_util.flatten_dict(template).items():
    collection, *module, name = key
    ours = '.'.join(module)
    source = f'{network.modules[ours]}.{names[collection, name]}'
    if source not in tensors:
      raise InputError(f'{path}: no tensor {source!r}; expected the weights of the published network {network.name}')
    value = np.asarray(tensors[source], np.float32)
    if name == 'kernel' and value.ndim >= 4:
      value = np.moveaxis(value, (0, 1) if network.is_transposed(ours) else (1, 0), (-2, -1))
      value = value[None] if value.ndim == 4 else value  # a kernel of one frame
    if value.shape != leaf.shape:
      raise InputError(
        f'{path}: tensor {source!r} has shape {tensors[source].shape}, '
        f'expected one that becomes {tuple(leaf.shape)} for {ours}.{name}'
      )
    variables[key] = value
    used.add(source)
  unused = sorted(name for name in tensors if name not in used and not name.endswith(_IGNORED_SUFFIX))
  return flax.traverse_util.unflatten_dict(variables), unused
