"""How many replicas a revision should have, and why: `decide(now, observation, policy, state)`.

The rule is Knative's pod autoscaler made aware of start-up: `policy` holds the knobs, `demand` turns observations into
a demand, `decision` decides, `behavior` limits the speed. All of it is pure; the clock is passed in.
"""

from fairlead.autoscaling.behavior import Behavior, Rules, SpeedLimit
from fairlead.autoscaling.decision import Decision, Mode, State, decide, initial_state
from fairlead.autoscaling.demand import Observation
from fairlead.autoscaling.policy import Metric, Policy

__all__ = [
    "Behavior",
    "Decision",
    "Metric",
    "Mode",
    "Observation",
    "Policy",
    "Rules",
    "SpeedLimit",
    "State",
    "decide",
    "initial_state",
]
