"""The program: `fastapi-maintenance`, and `python -m fastapi_maintenance`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one sentence how to install what it needs."""
    if sys.argv[1:] == ["--version"]:  # without typer, which takes most of the time
        from ._internal.version import VERSION

        sys.stdout.write(f"fastapi-maintenance {VERSION}\n")
        return
    try:
        from .cli.app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("rich", "typer"):
            raise
        sys.exit(
            f"The command line needs {missing}, which is not installed: "
            'pip install "fastapi-maintenance-cluster[cli]"'
        )
    app()


if __name__ == "__main__":
    main()
