"""Gaussian filters against SciPy's, in the forms of all platforms."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax.simulate import filters


@pytest.mark.parametrize('form', [filters.blur_by_shifts, filters.blur_by_matrices])
@pytest.mark.parametrize(('mode', 'theirs'), [('edge', 'nearest'), ('wrap', 'grid-wrap')])
def test_blur_is_scipys(form, mode, theirs):
  images = np.random.default_rng(0).random((2, 12, 3, 9)).astype(np.float32)
  weights = filters.gaussian_weights(jnp.float32(1.3), 4)
  expected = images
  for axis in (1, 3):
    expected = ndimage.gaussian_filter1d(expected.astype(float), 1.3, axis, mode=theirs, truncate=4 / 1.3)
  np.testing.assert_allclose(form(jnp.asarray(images), weights, (1, -1), mode), expected, atol=1e-6)


@pytest.mark.parametrize(('platform', 'products'), [('cpu', 0), ('cuda', 0), ('tpu', 2)])
def test_products_on_tpus_only_and_in_float32(platform, products):
  blur = jax.jit(lambda x, sigma: filters.gaussian_blur(x, sigma, 3, (1, 2)))
  text = jax.export.export(blur, platforms=[platform])(jnp.ones((2, 16, 16)), 1.0).mlir_module()
  found = [line for line in text.splitlines() if 'stablehlo.dot_general' in line]
  assert len(found) == products
  assert all('HIGHEST' in line for line in found)
