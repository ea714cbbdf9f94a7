"""What came of it, for people.

    results    what a study or a loop found, as a Python object
    findings   in sentences and in numbers with intervals
    tables     behind the figures, the paper's curves beside ours
    figures    the one definition of each; panels: of a testbed's own measures; captions: what stands over it
    render     a definition and its rows as SVG and PNG
    page       one HTML page that needs nothing else (page.html, page.css, page.js)
    folder     the files around it, and what of them goes onto the study run; archive: read back without a store
    leaderboard  what each method of a study keeps; board: for people;
                 outcomes: its loops, on record or in the file of another machine
    methods    a study that compares some: its board, and depths that a verifier does not see
    stages     the models that a study kept: its cells, and who entered each collapse stage first
    registry   those models under names that other tools load
    models     a model by any of its names, loaded
    compare    what a later model can no longer write
    ui         the MLflow UI and its views; server: behind a gate

Reads the record and writes nothing into it but reports, registered models and views.
"""
