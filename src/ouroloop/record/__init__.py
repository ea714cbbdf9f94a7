"""MLflow, and where things are kept.

    stores       folders, store URLs, locks
    track        study -> loop -> generation as nested runs, found and created
    run          one of them, written and read
    history      what a finished loop came to, in one file of its run
    locks        who holds a study or a lone loop
    provenance   what a run says of itself: configuration, software, machine
    liveness     signals, and runs that are RUNNING no longer than their process
    clean        frees what nothing needs

Knows nothing about learners, loops or studies.
"""
