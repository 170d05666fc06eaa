"""Execution by a plan: simple fields are read directly, the rest runs through graphql-core, within a timeout."""
