"""The laptop cluster: an API server, a node that runs pods as processes, and the supervisor behind `fairlead up`."""
