"""Configuration of the documentation site; `make docs` builds it."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Variseq"
author = "The Variseq authors"
release = version = importlib.metadata.version("variseq")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "mathml", "reference"]
exclude_patterns = ["_build", "_ext", "**/.ipynb_checkpoints"]

html_theme = "furo"
html_title = f"Variseq {release}"
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# Docstrings set names in single backticks.
default_role = "code"

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
