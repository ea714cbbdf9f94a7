"""MLflow, and where things are kept.

    urls         what the URL of a store may be, where it points to, and which parts of it a person may see
    stores       folders, and whether stores are there, reachable and writable
    track        study -> loop -> generation as nested runs, found and created
    run          one of them, written and read
    history      what a finished loop measured and wrote, in one file of its run
    locks        who holds a study or a lone loop
    provenance   what a run says of itself: configuration, software, machine
    liveness     signals, and how no run stays RUNNING longer than its process
    clean        frees what nothing needs

Knows a study and a loop as runs, and not how they are run.
"""
