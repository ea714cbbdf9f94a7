"""What learns: a dataset in, a fitted model out.

    base        what a learner is, in protocols
    empirical   the ideal learner: its training set, resampled
    network/    a causal LM of transformers

Knows nothing about cycles or records. torch is imported when a network is made, not before.
"""

from ouroloop.config import EmpiricalConfig, LoopConfig
from ouroloop.learner.base import Learner
from ouroloop.science.likeness import Reader, require_mauve


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


def reader_of(config: LoopConfig, learner: Learner) -> Reader | None:
    """The model that MAUVE asks for features, on the device that the learner computes on; None where none is asked.

    Raises:
        ConfigError: it, or the library, is not available.
    """
    if config.data.feature_model is None:
        return None
    require_mauve()
    from ouroloop.learner.network.features import load_reader

    return load_reader(
        config.data.feature_model, learner.device, 1 if config.train is None else config.train.num_threads
    )


def require_runnable(config: LoopConfig) -> Learner:
    """The learner, after checking everything that can be known before anything is recorded, and without D_0.

    Raises:
        ConfigError: it cannot learn, be sampled or be measured as configured.
    """
    learner = learner_of(config)
    learner.check()
    reader_of(config, learner)
    return learner
