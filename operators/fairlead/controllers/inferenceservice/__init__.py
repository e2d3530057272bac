"""The InferenceService controller.

Read the pure core first, in the order in which a reconcile runs it:

    desired        the spec's components: runtimes chosen, canaries merged, digests taken
      runtimes     which ServingRuntime serves the model
      pods         the pod template, from templates and merging
      podstorage   how its models come into it: storage (who fetches), credentials
    plan           one component's next step:
      revisions    which revisions there are, which workload carries each
      traffic      who gets what share: the one place where a weight is decided
    workloads      Deployments, Services, HPAs; scaling says how many pods
    readiness      what Deployments say; failures: why pods do not become ready
    gateways       what the gateways confirm
    status         conditions, URLs, components, modelStatus; transitions: the Events

The shell is `controller`, which reads through `observation`, `catalogue` and `surroundings` and writes through `applying`.
"""
