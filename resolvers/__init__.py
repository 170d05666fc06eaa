"""Resolvers: plain functions that authorize, read and return the core's records, or raise the core's errors.

The schema calls them and shapes what they return; nothing here imports it. ``customers``, ``invoices``,
``billing_periods``, ``adjustments``, ``drift`` and ``spend`` read, ``mutations`` change, one file each.
``node_lookup`` finds an object by its id, ``customer_search`` a customer by its name. ``permissions`` is the table of
the roles that may use each field, ``context`` has the viewer and the ``dataloaders`` of one operation.
"""
