"""What operators ask and order, for the command line and the HTTP API alike: verbs on the control plane.

`desk` has the verbs, `views` makes documents of the state, `plans` carries plans over the wire.
"""
