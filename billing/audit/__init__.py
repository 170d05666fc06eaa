"""What Support did to a customer's billing: written down before it is done, and how it ended after.

``AuditLog`` (in ``log``) begins an act in the log by the script in ``scripts``, ends it there and reads it.
"""

from billing.audit.log import ActOutcome, AuditEntry, AuditLog, Intent

__all__ = ["ActOutcome", "AuditEntry", "AuditLog", "Intent"]
