"""ARM deployments: expressions, parameters, variables, copy loops, conditions, nested deployments.

`expand.resources` is the way in. Nothing here asks Azure: what only Azure knows becomes a marked stand-in.
"""
