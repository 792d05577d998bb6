"""Structured log fields with stable names, one-line records, and the text of an error."""

from __future__ import annotations

import logging
import re
from typing import Final

# Control characters, line and paragraph separators, surrogates, and what reorders text on a
# terminal.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def log_fields(event: str, **details: object) -> dict[str, object]:
    """Return the `extra` of a log record: event and details, as docs/metrics.md lists them."""
    return {
        "maintenance_event": event,
        **{f"maintenance_{name}": detail for name, detail in details.items()},
    }


def one_line(text: str) -> str:
    """Escape the characters that could begin a new line or steer a terminal."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _OneLine(logging.Filter):
    """Escapes values of records, so that none forges a log line (CWE-117)."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _UNSAFE.search(message):
            record.msg, record.args = one_line(message), ()
        for name, value in vars(record).items():
            if name.startswith("maintenance_") and isinstance(value, str):
                setattr(record, name, one_line(value))
        # An error may quote anything, so no line of a traceback begins like a record.
        if record.exc_info:
            lines = logging.Formatter().formatException(record.exc_info).split("\n")
            record.exc_text = "\n".join(f"    {one_line(line)}" for line in lines)
        return True


logging.getLogger("fastapi_maintenance").addFilter(_OneLine())


def error_text(error: BaseException) -> str:
    """Return the message of an error, or its type if it has none."""
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
