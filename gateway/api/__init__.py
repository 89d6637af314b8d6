"""The HTTP door: observations in, answers and the dashboard out.

`door` is the binding, `app` all endpoints together, `desk` the way to the gateway's node, `reading` what a
body means, `running` what the run's supervisor tells, `state` the document that the dashboard is fed with.
docs/api.md is for those who call it.
"""
