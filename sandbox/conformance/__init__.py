"""Conformance: every guess of the sandbox, tried in a Stripe account of test mode.

``account.TestAccount`` calls the API and cleans up. Each function in ``cases`` tries one guess of
``sandbox/about.txt`` under its name there, and notes what was expected and what was seen.
"""
