"""Depth from unaligned focal stacks in JAX and Flax.

import focal_jax
model = focal_jax.load()
out = model.predict(images, focus, fov)
"""

from focal_jax.api import ClassicalModel, Model, load
from focal_jax.errors import InputError
from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import FocalStack, Prediction

__all__ = ['ClassicalModel', 'FocalStack', 'InputError', 'Model', 'Prediction', 'Predictor', 'load']
__version__ = '0.1.0'
