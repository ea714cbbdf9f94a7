"""One loop: generation after generation.

    loop         the loop, tracked and resumable: the page to read first
    generation   one generation: fit, sample, measure
    harvest      curates its texts: asks for more until enough are kept
    lineage      the earlier models, for a learner that learns from them
    cache        a generation's result, found by what determines it
    attempt      one attempt at a loop by one process, which may be killed or superseded
    observer     whoever watches

Knows a testbed and a learner only by their protocols, and nothing about studies.
"""
