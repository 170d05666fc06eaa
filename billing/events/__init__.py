"""Stripe's events: stored durably in an inbox before they are acknowledged, and processed later.

``inbox.Inbox`` stores and hands out the events by the scripts in ``scripts``. ``records`` are its records;
``effects`` is the table of the event types and their effects.
"""

from billing.events.inbox import Inbox, InboxPolicy

__all__ = ["Inbox", "InboxPolicy"]
