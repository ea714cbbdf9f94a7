"""Functions of texts and datasets, and of nothing else: no torch, no MLflow, no clock.

    seeding      one root seed, many named streams of random numbers
    dataset      texts with the provenance of each
    cycle        which examples form the next training set
    metrics      diversity, distinct texts, stages
    statistics   intervals within bounds, medians of what has not happened yet
    curation/    which texts the next model learns from
    likeness     how like real texts other texts are, by another model's features
    divergence   how far a model's distribution is from the true one

Knows a testbed by its protocol.
"""
