"""MLflow, and where things are kept.

    urls         what the URL of a store may be, and what of it a person may see
    stores       folders, and stores that are there, reachable, writable or not
    track        study -> loop -> generation as nested runs, found and created
    run          one of them, written and read
    history      what a finished loop came to, in one file of its run
    locks        who holds a study or a lone loop
    provenance   what a run says of itself: configuration, software, machine
    liveness     signals, and runs that are RUNNING no longer than their process
    clean        frees what nothing needs

Knows nothing about learners, loops or studies.
"""
