"""What came of it, for people.

    results    what a study or a loop found, as a Python object
    findings   in sentences and in numbers with intervals
    tables     behind the figures, the paper's curves beside ours
    figures    as PNG
    page       one HTML page that needs nothing else (page.html, page.css, page.js), and the folder around it
    stages     the models that a study kept: its cells, and who entered each collapse stage first
    registry   those models under names that other tools load
    models     a model by any of its names, loaded
    compare    what a later model can no longer write
    ui         the MLflow UI: views and server

Reads the record and writes nothing into it but reports, registered models and views.
"""
