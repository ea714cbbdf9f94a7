"""A causal LM of transformers, trained by Lightning, sampled and scored by our own means.

    learner     the network as a learner
    fitted      the network that a learner has fitted
    model       built from its configuration, saved, loaded
    batches     the data module, and packing instead of padding
    train       the Lightning module, and one call that trains it
    graph       a training step as one CUDA graph
    neox        GPT-NeoX by hand, for small models on a CPU
    muon        the optimizer of the weight matrices, and AdamW for the rest
    sharding    a model shared out over devices
    subwords    the tokens of a language without words of its own
    pretrained  somebody's model that a loop starts from, fetched if it is given as a name of the hub
    features    what a model that learns nothing makes of texts
    world       several devices as one
    targets     what a text teaches: its tokens, or what a model makes of them
    rows        which texts are computed at once
    ensemble    several models as one
    editing     the most predictable tokens of a text, written anew
    continuing  texts that go on where real beginnings end
    prefixes    a tree of prefixes, in slots of the key-value cache
    next_token  the distribution that texts are drawn from, token by token
    sampling    draws texts from a tree of prefixes
    scoring     how probable given texts are

Knows a testbed by its tokenizer alone.
"""

from ouroloop import fetching as _fetching  # noqa: F401 before transformers is there: only `pretrained` fetches anything
