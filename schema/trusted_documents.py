"""What the example panel asks, as the manifest of trusted documents that `BILLING_TRUSTED_DOCUMENTS` takes."""

import json
import re
from pathlib import Path

PANEL = Path(__file__).parent.parent / "examples" / "panel"
_DOCUMENT = re.compile(r"^const ([A-Z]+) = `([^`]+)`;$", re.MULTILINE)


def panel_documents() -> dict[str, str]:
    """The documents in the panel's script by the names of their constants, in lower case."""
    script = (PANEL / "panel.js").read_text(encoding="utf-8")
    return {name.lower(): text for name, text in _DOCUMENT.findall(script)}


def printed() -> str:
    """The manifest as it is written."""
    return json.dumps(panel_documents(), indent=2) + "\n"
