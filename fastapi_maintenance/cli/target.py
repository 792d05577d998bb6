"""Which backend the options name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..backends import BaseStateBackend, EnvVarBackend, LocalFileBackend, backend_from_url
from ..backends.default import BACKEND_VARIABLE, backend_or_default
from ..exceptions import ConfigurationError

__all__ = ["BackendSelection"]

_SHORT_NAMES: Final = "env, file or redis"


@dataclass(frozen=True, slots=True)
class BackendSelection:
    """The options before the command, or those after it."""

    backend: str | None = None
    var_name: str | None = None
    file_path: str | None = None

    def merge(self, outer: BackendSelection) -> BackendSelection:
        """These where they are given, else the outer ones."""
        return BackendSelection(
            outer.backend if self.backend is None else self.backend,
            outer.var_name if self.var_name is None else self.var_name,
            outer.file_path if self.file_path is None else self.file_path,
        )

    def create(self) -> BaseStateBackend:
        """Make the backend. Raises `ConfigurationError`, which says what to write instead."""
        kind = self.backend or self._implied()
        self._refuse("--var-name", self.var_name, kind, "env")
        self._refuse("--file-path", self.file_path, kind, "file")
        if not kind:
            return _default()
        if ":" in kind:
            return backend_from_url(kind)
        return self._of_kind(kind)

    def _implied(self) -> str:
        """Who names a variable or a file need not say which backend that is for."""
        if self.var_name is not None:
            return "env"
        return "" if self.file_path is None else "file"

    def _refuse(self, option: str, value: str | None, kind: str, belongs_to: str) -> None:
        if value is not None and kind != belongs_to:
            raise ConfigurationError(
                f"{option} belongs to --backend {belongs_to}, and another backend is given too: leave one of them out."
            )

    def _of_kind(self, kind: str) -> BaseStateBackend:
        if kind == "env":
            return EnvVarBackend(self.var_name)
        if kind == "file":
            if self.file_path is None:
                raise ConfigurationError(
                    "--backend file needs --file-path too: name the file, or write --backend file:maintenance.json."
                )
            return LocalFileBackend(self.file_path)
        if kind == "redis":
            raise ConfigurationError(
                "--backend redis does not say where: write an address, like --backend redis://localhost:6379/0."
            )
        raise ConfigurationError(
            f"There is no backend {kind!r}: write {_SHORT_NAMES}, or an address like redis://localhost:6379/0."
        )


def _default() -> BaseStateBackend:
    try:
        return backend_or_default()
    except ConfigurationError as error:
        raise ConfigurationError(
            f"The environment variable {BACKEND_VARIABLE} cannot be meant so: {error}"
        ) from None
