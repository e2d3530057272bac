"""The InferenceService controller.

Read the pure core first, in the order in which a reconcile runs it:

    components   the spec's components, canaries merged, defaults filled in
    runtimes     which ServingRuntime serves the model
    pods         the pod template: runtime and user's fields merged
    revisions    which revisions there are, which workload carries each
    traffic      who gets what share
    workloads    Deployments, Services and HPAs
    failures     why pods do not become ready
    status       conditions, URLs, modelStatus

`plan` runs revisions and traffic together; `controller` observes, calls the core, applies, prunes and reports.
"""
