"""Credit features of a bank's monthly loan ledger, each written once as an Ibis expression; one module a family.

`ledger` says what a ledger is, `catalogue` finds and computes features, `uci` reshapes a public file into a ledger.
"""
