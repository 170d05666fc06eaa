"""Execution within a timeout. ``timeout.executor_class`` is the only entrance.

The plan executor (``executor``, ``plan``, ``simple_fields``) reads simple fields directly, everything else
runs through graphql-core. It makes answers faster and not different: the suite also passes with
``--executor=stock``, without it.
"""
