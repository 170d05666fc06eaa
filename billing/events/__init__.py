"""The inbox: Stripe's events, durable before they are answered, worked on later by subject.

``Inbox`` (in ``inbox``) runs the scripts in ``scripts``; ``events`` are the words for what it keeps, ``effects``
is what follows from each type of event.
"""

from billing.events.inbox import Inbox, InboxPolicy

__all__ = ["Inbox", "InboxPolicy"]
