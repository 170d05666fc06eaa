"""Resolvers: each one authorises, loads and shapes the answer; other logic belongs in ``billing``.

``query``, ``mutation`` and ``subscription`` are the roots of the schema. ``types`` has the object types and
``mutations`` the mutations, one file each; both read through ``dataloaders``. ``permissions`` is the table of the
roles that may use each field, and ``context`` carries the viewer and the services of one operation.
``node_lookup`` finds an object by its id, ``customer_search`` a customer by its name.
"""
