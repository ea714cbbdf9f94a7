"""Where texts come from, and how they are judged: one package for each language.

    base         what a testbed is, in protocols; texts counted and judged
    tokenizer    words <-> token ids
    logic/       logic expressions, where truth is decidable: grammar, verify, oracle, distribution, testbed
    text/        a corpus of natural language: tokens, docstrings, corpus, spans, measures, testbed

Knows nothing about models, datasets or records.
"""
