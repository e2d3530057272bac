"""The shell around `fairlead.autoscaling`: what the gateways count becomes observations, decisions become replicas.

`readings` (pure) makes observations of the agents' counters, which `agents` fetches; `board` is where the InferenceService controller
says what may be scaled and reads what was decided; `loop` ticks. While a workload may be scaled by demand, `loop` is the only writer of
its replicas.
"""
