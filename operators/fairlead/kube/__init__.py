"""The controller runtime: what a Kubernetes controller needs, and nothing that only models do.

    errors, resources, objects   what can go wrong, where a kind lives, dicts as the API server sent them
    config, credentials, client  from a kubeconfig or a pod's service account to requests
    informer, store              a kind's objects, listed once and then watched
    backoff, queue, controller   keys that wait, workers that reconcile them
    lease, manager, metrics      who leads, what runs, how it is seen from outside
    events, conditions           what users read

Each name is imported from its own module, so that a command that only reads objects does not load the rest.
"""
