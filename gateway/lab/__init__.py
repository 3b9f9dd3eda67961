"""A whole federation in one process, with the real protocols: for trying out, and for measuring.

A lab run has three parts: what the members bring (files or made-up vectors) becomes one `Program` a member, a
`MeteredFederation` runs them through the production state machines, and what comes out is reported with its cost.
"""
