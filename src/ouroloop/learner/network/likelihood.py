"""What M_t itself says: the measures that need a model's log-probabilities and not just its texts.

They are taken under the law that S_t comes from, at the sampling temperature. Every generation and arm of
a seed scores the same held-out expressions: differences between them are sharper than each one's error.
"""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from ouroloop.config import LoopConfig
from ouroloop.learner.network.sampling import Nats, log_probabilities_at, log_probabilities_of_tree
from ouroloop.science.divergence import forward, kl_forward, reverse
from ouroloop.science.metrics import Estimate, Sample
from ouroloop.science.seeding import stream
from ouroloop.testbed.logic.distribution import Law, Stratum

_DRAWS = 100  # held-out expressions of each depth that is not enumerated: 12,000 tokens, a fiftieth of the training
_MANY = 10_000  # texts from which on shared prefixes pay


def measure_model(
    config: LoopConfig,
    number: int,
    model: PreTrainedModel,
    sample: Sample,
    texts: Sequence[str],
    nats: Sequence[float],
) -> dict[str, Estimate]:
    """Coverage, divergences and entropy of M_t; `texts` are S_t, and `nats` how probable sampling each one was.

    `kl_forward_t1_nats` is the model's own, at temperature 1: what sampling sharpened is not in it.
    """
    law, temperature = Law.of(config.data), config.sampling.temperature
    strata = held_out(law, config.seed, enumerated=2 if number % config.exact_every else 3)
    at_temperature, at_1 = zip(*_score(model, [s.texts for s in strata], [temperature, 1.0]), strict=True)
    measures = reverse(law, sample, texts, np.array(nats)) | forward(law, strata, at_temperature)
    own = kl_forward(strata, at_1)
    return measures if own is None else measures | {"kl_forward_t1_nats": own}


def _score(model: PreTrainedModel, lists: Sequence[Sequence[str]], temperatures: Sequence[float]) -> list[Nats]:
    """[temperature, text] for each list: very many texts share prefixes, all others share batches."""
    few = [texts for texts in lists if len(texts) <= _MANY]
    together = log_probabilities_at(model, [text for texts in few for text in texts], temperatures)
    of_few = iter(np.split(together, np.cumsum([len(texts) for texts in few])[:-1], axis=1))
    return [
        next(of_few) if len(texts) <= _MANY else log_probabilities_of_tree(model, texts, temperatures)
        for texts in lists
    ]


def held_out(law: Law, seed: int, enumerated: int) -> list[Stratum]:
    """A stratum for each depth: every expression up to depth `enumerated`, above it draws of their own stream.

    The draws are independent of D_0, hence may stand in it; leaving those out would bias the divergence.
    """
    return [
        law.all_of_depth(depth) if depth <= enumerated else law.draw(depth, _DRAWS, stream(seed, "held_out", depth))
        for depth in law.depths
    ]
