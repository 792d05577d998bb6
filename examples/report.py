"""A cron script that exits during maintenance; a drain waits for it while it writes."""

from __future__ import annotations

import os
import sys

from fastapi_maintenance import BackgroundMode

TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h


def main() -> int:
    with BackgroundMode(os.environ.get("REDIS_URL", "redis://localhost:6379")) as maintenance:
        if not maintenance.wait_until_open(timeout=float(os.environ.get("PATIENCE", "0"))):
            print("Maintenance is on; try again later.", file=sys.stderr)  # noqa: T201
            return TRY_LATER
        with maintenance.job():
            print("The report is written.")  # noqa: T201
        return 0


if __name__ == "__main__":
    sys.exit(main())
