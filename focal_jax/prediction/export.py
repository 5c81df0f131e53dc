"""`focal-jax export`: a network with its weights as one self-contained StableHLO file (`jax.export`)."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

import focal_jax
from focal_jax.align.estimate import check_alignment
from focal_jax.errors import InputError
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.models.depth import MULTIPLE
from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import FocalStack

log = logging.getLogger(__name__)

MODEL_FILE, ABOUT_FILE = 'model.jax_export', 'model.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
ALIGNMENTS = ('network', 'metadata', 'off')  # those available within a network

_SHAPES = {
  'images': f'B, N, {MULTIPLE}*h, {MULTIPLE}*w, 3',
  'focus': 'B, N',
  'fov': 'B, N',
  'size': '2',
}
_INPUTS = {
  'images': 'RGB 0 .. 1, frames far to near, padded arbitrarily to multiples of 32 px at the bottom and right',
  'focus': 'focus coordinate of each frame, in any unit',
  'fov': 'relative field of view of each frame, 1 for the narrowest; 1 if unknown',
  'size': 'height and width of the frames without padding, px',
}
_OUTPUTS = {
  'depth': 'in the unit of focus; like all maps, meaningless beyond size',
  'confidence': '0 .. 1',
  'weights': 'the focus distribution; sums to 1 over the frames',
  'uncertainty': 'standard deviation of the focus distribution, in the unit of depth',
  'all_in_focus': 'the reference frame, sharp everywhere, RGB 0 .. 1, as predicted by the network',
  'defocus': 'of each frame, 0 .. 1, as predicted by the network',
  'aligned': 'frames aligned to the last one, RGB 0 .. 1',
  'coverage': 'share of each aligned pixel that came from inside its frame, 0 .. 1',
  'motion': 'zoom, and shift along x and y in px, of each frame',
}


def export_model(model: Predictor, out: Path, *, align: str = 'network', overwrite: bool = False) -> dict[str, Any]:
  """Writes a model for any number of stacks, frames and pixels, for CPUs, CUDA and TPUs, into `out`, with model.json,
  which describes inputs, outputs and weights.

  `examples/run_exported.py` runs it. On each platform, convolutions and warps have the form that is fastest there
  (`backend`), independent of the exporting platform. XLA's CPU options are up to the caller; without them (`backend`)
  the model is slower on CPUs than `predict`.

  Args:
    model: a network from `focal_jax.load`.
    out: new or empty folder, unless `overwrite`.
    align: as for `Predictor.predict`, except 'measured', which is not part of the network: 'network', 'metadata', or
      'off', which also omits the field-of-view crop.
    overwrite: replace existing content of `out`.

  Returns:
    The content of model.json.

  Raises:
    InputError: an invalid model, `align` or `out`; nothing is written then.
  """
  check_output(out, overwrite)
  check_alignment(align)
  if model.network is None:
    raise InputError(f'{model.name}: has no network to export, expected the weights of a network')
  if align == 'measured':
    raise InputError("align is 'measured', which cannot be exported, expected network, metadata or off")
  if align == 'network' and not model.has_alignment_network:
    raise InputError(f"{model.name}: has no alignment network and align is 'network', expected metadata or off")

  def predict(images: jax.Array, focus: jax.Array, fov: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
    stack = FocalStack(images=images, focus=focus, fov=fov)
    motion = {'motion': jnp.zeros((*fov.shape, 3))} if align == 'metadata' else {}
    prediction = model.network.apply(model.variables, stack, align=align != 'off', size=(size[0], size[1]), **motion)
    outputs = {name: getattr(prediction, name) for name in _OUTPUTS}
    return {name: output for name, output in outputs.items() if output is not None}

  scope = export.SymbolicScope(['N >= 2'])
  inputs = {
    name: jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), jnp.int32 if name == 'size' else jnp.float32)
    for name, shape in _SHAPES.items()
  }
  log.info('%s: exporting', model.name)
  exported = export.export(jax.jit(predict), platforms=PLATFORMS)(*inputs.values())
  outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  about = {
    'file': MODEL_FILE,
    'inputs': {name: _about(_INPUTS[name], aval) for name, aval in inputs.items()},
    'outputs': {name: _about(meaning, outputs[name]) for name, meaning in _OUTPUTS.items() if name in outputs},
    'align': align,
    'platforms': list(exported.platforms),
    'weights': model.name,
    'description': model.description,
    'calling_convention': exported.calling_convention_version,
    'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
  }
  with result_folder(out, overwrite) as staging:
    (staging / MODEL_FILE).write_bytes(exported.serialize())
    (staging / ABOUT_FILE).write_text(json.dumps(about, indent=2) + '\n')
  log.info('wrote %s', out / MODEL_FILE)
  return about


def _about(meaning: str, array: Any) -> dict[str, str]:
  return {'shape': ', '.join(map(str, array.shape)), 'dtype': str(array.dtype), 'meaning': meaning}
