"""A causal LM of transformers, trained by Lightning, sampled and scored by our own means.

    learner     the network as a learner
    model       built from its configuration, saved, loaded
    batches     the data module, and packing instead of padding
    train       the Lightning module, and one call that trains it
    neox        GPT-NeoX by hand, for small models on a CPU
    muon        the optimizer of the weight matrices, and AdamW for the rest
    sharding    a model shared out over devices
    subwords    the tokens of a language without words of its own
    pretrained  somebody's model that a loop starts from
    hub         where such a one is fetched
    world       several devices as one
    targets     what a text teaches: its tokens, or what a model makes of them
    rows        which texts are computed at once
    ensemble    several models as one
    editing     the most foreseeable tokens of a text, written anew
    continuing  texts that go on where real ones end
    sampling    draws texts, and says how probable they are, from trees of prefixes

Knows a testbed by its tokenizer alone.
"""

import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec

OFFLINE_BY_CHOICE = "HF_HUB_OFFLINE" in os.environ
"""Whether nothing may be fetched even when a model is asked for by its name."""
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is there: nobody but `hub` fetches anything
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _import_lightning() -> None:
    """Imports Lightning without all of torchmetrics, of which it wants two classes: half of its time goes there.

    Their package is entered without its `__init__`, which imports a hundred metrics and scipy.signal. Whoever imports
    torchmetrics later gets the whole of it, and in it the same two classes.
    """
    spec = None if {"torchmetrics", "pytorch_lightning"} & sys.modules.keys() else find_spec("torchmetrics")
    if spec is None:
        return
    bare = sys.modules["torchmetrics"] = module_from_spec(spec)
    vars(bare).update(_logger=logging.getLogger("torchmetrics"), __version__=version("torchmetrics"))
    try:
        with suppress(ImportError, AttributeError):  # of another version: then as ever, below
            import_module("torchmetrics.utilities")  # which metric and it want in this order
            vars(bare)["Metric"] = import_module("torchmetrics.metric").Metric
            vars(bare)["MetricCollection"] = import_module("torchmetrics.collections").MetricCollection
            import_module("pytorch_lightning")
    finally:
        del sys.modules["torchmetrics"]


_import_lightning()
