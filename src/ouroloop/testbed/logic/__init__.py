"""Logic expressions over constants: truth is decidable, and the distribution has a closed form.

    grammar        draws expressions
    verify         judges any text: True, False or malformed
    oracle         lets sympy judge too
    distribution   P in closed form
    testbed        all of it as a testbed

Science, learners, the record and the loop do not know a word of it.
"""
