"""How many replicas a revision should have, and why: `decide(clock, observation, policy, state)`.

The rule is Knative's pod autoscaler made aware of start-up: `policy` holds the knobs, `demand` turns observations into a demand, `state` remembers,
`decision` decides, `behavior` limits the speed. `history` keeps an hour of it and plays it again. All of it is pure; the clock is passed in.
"""

from fairlead.autoscaling.behavior import Behavior, Rules, SpeedLimit
from fairlead.autoscaling.decision import Decision, Mode, decide
from fairlead.autoscaling.demand import Observation
from fairlead.autoscaling.policy import Metric, Policy
from fairlead.autoscaling.state import State, initial_state, with_sign_of_life

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
    "with_sign_of_life",
]
