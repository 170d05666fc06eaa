"""The example panel's operations as a trusted documents manifest, for `BILLING_TRUSTED_DOCUMENTS`."""

import json
import re
from pathlib import Path

PANEL = Path(__file__).parent.parent / "examples" / "panel"
_DOCUMENT_PATTERN = re.compile(r"^const ([A-Z]+) = `([^`]+)`;$", re.MULTILINE)


def panel_documents() -> dict[str, str]:
    """The operations in the panel's script, by the lower-case names of their constants."""
    script = (PANEL / "panel.js").read_text(encoding="utf-8")
    return {name.lower(): text for name, text in _DOCUMENT_PATTERN.findall(script)}


def render() -> str:
    """The manifest as JSON."""
    return json.dumps(panel_documents(), indent=2) + "\n"
