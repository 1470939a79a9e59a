"""The linear family: n-grams, solvers and boosted trees, without torch."""
