"""The laptop's node: Deployments become Pods, Pods become supervised processes, Services become EndpointSlices.

Read the pure modules first: `rolling_update` (which pods to make and to delete), `endpoints` (who may get traffic), `probes`,
`restarts`, `pod_process` (what a container is when there are no containers), `pod_status`. `workloads`, `pod` and `node` are the
shells around them.
"""
