"""What other servers are given to do is what Tidegate does."""

import numpy as np

from contract.card import ImageLimits, Preprocessing
from loadtest.bench.others.classifier import decoded
from loadtest.bench.workloads import photograph
from serving.images import prepare


def test_other_servers_decode_the_photograph_as_tidegate_does() -> None:
    preprocessing = Preprocessing(
        height=224, width=224, shorter_side=232, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    ours = prepare(photograph(), preprocessing, ImageLimits())
    assert np.array_equal(decoded(photograph(), preprocessing.model_dump()), ours)
