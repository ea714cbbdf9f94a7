"""What learns: a dataset in, a fitted model out.

    base        what a learner is, in protocols
    empirical   the ideal learner: its training set, resampled
    network/    a causal LM of transformers: learner, model, batches, train, muon, sampling

Knows nothing about generations, cycles or records. torch is imported when a network is made, not before.
"""

from ouroloop.config import EmpiricalConfig, LoopConfig
from ouroloop.learner.base import Learner


def learner_of(config: LoopConfig) -> Learner:
    """The learner that a loop's configuration names.

    Raises:
        ConfigError: it cannot be built, or not on this machine.
    """
    if isinstance(config.model, EmpiricalConfig):
        from ouroloop.learner.empirical import EmpiricalLearner

        return EmpiricalLearner(config.sampling.temperature)
    from ouroloop.learner.network.learner import NetworkLearner

    assert config.train is not None
    return NetworkLearner(config.model, config.train, config.sampling, config.data.testbed.tokenizer)
