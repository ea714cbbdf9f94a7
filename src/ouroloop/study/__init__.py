"""Many loops: what runs next, where, and the answer.

    config      what a study is, which loops it spans or chooses from, and what a method may know
    method      one entry of a comparison: what it changes in a loop
    driver      the one process that decides and writes: read it first
    trials      what was asked for and what came back, in Optuna
    task        one loop of a study and what is known of it
    recorded    all of that, for whoever only reads
    search      where retention passes a target, and how sure that is
    executor    this process, processes of this machine, or a Ray cluster
    work        what an executor is given: one loop
    status      where studies stand
    estimate    what a loop or a study will take
    answer      what came of it, in words

Hands loops to `loop`, and does not tell one learner from another.
"""
