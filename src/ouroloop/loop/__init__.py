"""Generations 1..T.

    loop         the loop, tracked and resumable: the page to read first
    generation   one generation: fit, sample, measure
    cache        what a generation came to, found by what determines it

Knows a testbed and a learner by their protocols, and nothing about studies.
"""
