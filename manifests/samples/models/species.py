"""A transformer: it has no `predict` of its own, so the predictor's is called between `preprocess` and `postprocess`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlead.runtime import InferRequest, InferResponse, Model

SPECIES = np.array(["setosa", "versicolor", "virginica"])


class Species(Model):
    """Names the species that the predictor gives a number."""

    def postprocess(self, response: InferResponse, request: InferRequest) -> Any:
        return {"species": SPECIES[response.outputs[0].data.astype(int)]}
