"""Shared parts of the tests: the sandbox and the gateway as processes."""
