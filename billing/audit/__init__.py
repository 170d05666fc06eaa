"""The audit log of Support's actions: recorded before each action, with the outcome after it.

``log.AuditLog`` begins an entry by the script in ``scripts``, completes it and reads it.
"""

from billing.audit.log import ActionIntent, ActionOutcome, AuditEntry, AuditLog

__all__ = ["ActionIntent", "ActionOutcome", "AuditEntry", "AuditLog"]
