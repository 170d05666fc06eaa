"""Differential fuzz of the plan executor: random schemas with sick data, run beside graphql-core's own executor."""
