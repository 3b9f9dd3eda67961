"""Learning from sums: the scorecard job, its solver, its metrics and its model."""
