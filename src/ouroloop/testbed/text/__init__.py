"""The text testbed: a corpus of natural language, where nothing is decidable and everything is compared with real text.

    tokens       words and punctuation marks, which need no model
    docstrings   a corpus that needs no download: what the libraries that this program is built on say of themselves
    corpus       documents as a stream, and which of their blocks are D_0, fresh and held out
    spans        what is copied
    measures     distinct n-grams, self-BLEU, vocabulary, compression, repetition
    testbed      all of it, as the loop knows it

Nothing else knows that a text has words.
"""
