"""The results of loops and studies, for people.

    results    what a study or a loop found, as a Python object
    findings   the same in sentences, and in numbers with intervals
    tables     behind the figures, the paper's curves beside ours
    figures    each defined once, of layers; panels: the figure of a testbed's own measures;
                 captions: what stands over them
    render     a definition and its rows as SVG and PNG; looks: colours, dashes and marks
    page       one HTML page that needs nothing else (page.html, page.css, page.js)
    folder     the files around it, and which of them go onto the study's run; archive: read back without a store
    leaderboard  what each method of a study keeps; board: the same for people;
                 outcomes: its loops, on record or in the file of another machine
    methods    a study that compares methods: its board, and depths that a verifier does not see
    stages     the models that a study kept: its cells, and which generation entered each stage first
    registry   those models under names that other tools load
    models     a model by any of its names, loaded
    compare    what a later model can no longer write
    ui         the MLflow UI and its views; server: behind a gate

Reads the record, and writes nothing into it except reports, registered models and views.
"""
