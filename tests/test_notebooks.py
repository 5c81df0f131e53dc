"""The notebooks run from start to end, on small frames."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / 'notebooks'


@pytest.mark.parametrize('name', ['quickstart.ipynb'])
@pytest.mark.filterwarnings('default')  # Jupyter's own
def test_notebook(name):
  notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
  for cell in notebook.cells:
    cell.source = cell.source.replace('MAX_SIDE = 512', 'MAX_SIDE = 64')
  client = NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(NOTEBOOKS)}})
  client.execute()
  assert any('image/png' in output.get('data', {}) for cell in notebook.cells for output in cell.get('outputs', []))
