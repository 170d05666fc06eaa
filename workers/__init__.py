"""Background jobs, run by arq; jobs are only signals, the state is in the ledger.

``main`` configures arq and its loops, ``dispatcher`` claims due periods, ``flush/`` brings their invoices at
Stripe up to date. ``process_events`` acts on Stripe's events, ``poll_events`` fetches those that were never
delivered, ``reconcile`` requests the weekly verify of every open period. ``metrics_server`` serves Prometheus.
"""
