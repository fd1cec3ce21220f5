"""Any model that can be estimated: the reference transformer, or a library's. Import this for type checking alone, so
that an estimate of the one does not load the other."""

from __future__ import annotations

from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer

Model = Transformer | LibraryModel
