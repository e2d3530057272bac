"""The gateway: HAProxy carries the traffic, an agent beside it tells it where to.

Read `routes` (what should be served), `plan` (how to get HAProxy there), then `config`; `agent` is the loop around them.
"""
