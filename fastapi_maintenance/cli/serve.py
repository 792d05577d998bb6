"""Answer 503 in the place of a service whose workers are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from ..backends import BaseStateBackend
from ..model.precedence import SAFE_METHODS
from ..model.state import MaintenanceState
from ..responses.negotiation import negotiate, preferences
from ..responses.options import ResponseOptions
from ..responses.renderers import JSON, MEDIA_TYPES, PROBLEM
from ..responses.response import MODE_HEADER, MaintenanceResponse
from ..responses.translations import TRANSLATIONS
from ..runtime.mode import MaintenanceMode
from .console import ExitCode, echo, exit_with


def serve(backend: BaseStateBackend, host: str, port: int) -> None:
    """Answer 503 to every request until interrupted."""
    try:
        import uvicorn
    except ModuleNotFoundError:
        exit_with(
            "uvicorn must be installed to serve: pip install 'fastapi-maintenance-cluster[demo]'",
            ExitCode.FAILED,
        )
    stand_in = StandIn(backend)
    echo(f"Answering 503 on http://{host}:{port} by the switch at {backend.describe()}.")
    uvicorn.run(
        stand_in,
        host=host,
        port=port,
        lifespan="on",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )


# -- the responses while maintenance is off --------------------------------------------------------

_DETAIL: Final = "Service temporarily unavailable"
_TEXTS: Final = {
    "en": (_DETAIL, "This service cannot answer right now. It will be back shortly."),
    "de": (
        "Zurzeit nicht erreichbar",
        "Dieser Dienst kann gerade nicht antworten. Er ist in Kürze wieder da.",
    ),
    "es": (
        "No disponible temporalmente",
        "Este servicio no puede responder en este momento. Volverá en breve.",
    ),
    "fr": (
        "Temporairement indisponible",
        "Ce service ne peut pas répondre pour le moment. Il sera de retour sous peu.",
    ),
    "it": (
        "Temporaneamente non disponibile",
        "Questo servizio non può rispondere in questo momento. Tornerà a breve.",
    ),
    "nl": (
        "Tijdelijk niet beschikbaar",
        "Deze dienst kan nu niet antwoorden. Hij is binnenkort terug.",
    ),
    "pl": ("Chwilowo niedostępne", "Ta usługa nie może teraz odpowiedzieć. Wkrótce wróci."),
    "pt": (
        "Temporariamente indisponível",
        "Este serviço não consegue responder neste momento. Voltará em breve.",
    ),
    "ja": ("一時的に利用できません", "現在、サービスは応答できません。まもなく再開します。"),
    "zh": ("暂时不可用", "此服务目前无法响应，很快就会恢复。"),
    "ar": ("غير متاحة مؤقتًا", "لا تستطيع هذه الخدمة الرد الآن، وستعود قريبًا."),
}
_AWAY: Final = MaintenanceState(enabled=True, retry_after=5)
_OPTIONS: Final = ResponseOptions(
    problem_type="about:blank",
    translations={
        tag: replace(TRANSLATIONS[tag], title=title, message=message)
        for tag, (title, message) in _TEXTS.items()
    },
)


class _Follower(MaintenanceMode):
    """Follows the switch without a registration, because a barrier need not wait for it."""

    def report(self) -> Mapping[str, Any]:
        return {}


class StandIn:
    """An ASGI application that refuses every request and every WebSocket."""

    def __init__(self, backend: BaseStateBackend) -> None:
        self._mode = _Follower(backend)
        self._closed = _AWAY, MaintenanceResponse(_AWAY)
        # Programs get a sentence in English, people the texts of their language.
        for_programs = _AWAY.replace(message=_DETAIL)
        self._for_programs = MaintenanceResponse(for_programs, options=_OPTIONS)
        self._for_people = MaintenanceResponse(_AWAY, options=_OPTIONS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or follow the backend for the time of the lifespan."""
        if scope["type"] == "lifespan":
            await receive()
            async with self._mode:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        gate = self._mode.gate
        if monotonic() >= gate.until:
            gate = await self._mode.refresh()
        state = None if gate.closure is None else gate.closure.state
        # The read-only page would be wrong for a request that a read-only service serves.
        if state is None or (state.mode == "read-only" and scope.get("method") in SAFE_METHODS):
            response, send = self._away(scope), _without_mode(send)
        else:
            response = self._of(state)
        await response(scope, receive, send)

    def _of(self, state: MaintenanceState) -> MaintenanceResponse:
        """Return the response of a closed worker, encoded once per state."""
        if self._closed[0] is not state:
            self._closed = state, MaintenanceResponse(state, self._mode.now)
        return self._closed[1]

    def _away(self, scope: Scope) -> MaintenanceResponse:
        media_type = negotiate(preferences(scope)[0].decode("latin-1"), MEDIA_TYPES)
        return self._for_programs if media_type in (JSON, PROBLEM) else self._for_people


def _without_mode(send: Send) -> Send:
    """Leave out the header that says that maintenance is on."""

    async def passed(message: Message) -> None:
        if "headers" in message:
            headers = [header for header in message["headers"] if header[0] != MODE_HEADER]
            message = {**message, "headers": headers}
        await send(message)

    return passed
