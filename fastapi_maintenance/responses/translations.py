"""Translations of the page and of plain text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from ..exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """The sentences of the page and of plain text in one language, without HTML.

    `message` is the default message. `until` contains `{time}`. `waiting` is shown while the page
    polls for the return. `right_to_left` is for scripts that are written from right to left.
    """

    title: str
    message: str
    read_only_title: str
    read_only_message: str
    until: str
    waiting: str
    right_to_left: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, name = (bool, "True or False") if field.name == "right_to_left" else (str, "text")
            if not isinstance(value, kind):
                raise ConfigurationError(f"Translation.{field.name} must be {name}, got {value!r}.")
        if self.until.count("{time}") != 1:
            raise ConfigurationError(
                f"Translation.until must contain {{time}} once, got {self.until!r}."
            )


TRANSLATIONS: Final = {
    "en": Translation(
        title="Down for maintenance",
        message="We are working on this service right now. It will be back shortly.",
        read_only_title="Read-only for maintenance",
        read_only_message="Everything can still be read, but nothing can be changed for the moment.",
        until="Expected end: {time}",
        waiting="This page comes back by itself as soon as the service does.",
    ),
    "de": Translation(
        title="Wartungsarbeiten",
        message="Wir arbeiten gerade an diesem Dienst. Er ist in Kürze wieder erreichbar.",
        read_only_title="Zurzeit nur lesbar",
        read_only_message="Wegen Wartungsarbeiten kann im Moment nichts geändert werden. Lesen ist weiterhin möglich.",
        until="Voraussichtliches Ende: {time}",
        waiting="Diese Seite kommt von selbst zurück, sobald der Dienst wieder da ist.",
    ),
    "es": Translation(
        title="En mantenimiento",
        message="Estamos trabajando en este servicio. Volverá a estar disponible en breve.",
        read_only_title="Solo lectura por mantenimiento",
        read_only_message="Todo se puede seguir consultando, pero por el momento no se puede modificar nada.",
        until="Fin previsto: {time}",
        waiting="Esta página volverá por sí sola en cuanto lo haga el servicio.",
    ),
    "fr": Translation(
        title="Maintenance en cours",
        message="Nous intervenons actuellement sur ce service. Il sera de retour sous peu.",
        read_only_title="Lecture seule pendant la maintenance",
        read_only_message="Tout reste consultable, mais rien ne peut être modifié pour le moment.",
        until="Fin prévue : {time}",
        waiting="Cette page reviendra d’elle-même dès le retour du service.",
    ),
    "it": Translation(
        title="In manutenzione",
        message="Stiamo lavorando a questo servizio. Tornerà disponibile a breve.",
        read_only_title="Sola lettura per manutenzione",
        read_only_message="Tutto resta consultabile, ma al momento non è possibile modificare nulla.",
        until="Fine prevista: {time}",
        waiting="Questa pagina tornerà da sola non appena il servizio sarà di nuovo attivo.",
    ),
    "nl": Translation(
        title="Onderhoud",
        message="We werken op dit moment aan deze dienst. Hij is binnenkort weer beschikbaar.",
        read_only_title="Alleen lezen vanwege onderhoud",
        read_only_message="Alles blijft leesbaar, maar er kan op dit moment niets worden gewijzigd.",
        until="Verwacht einde: {time}",
        waiting="Deze pagina komt vanzelf terug zodra de dienst er weer is.",
    ),
    "pl": Translation(
        title="Prace konserwacyjne",
        message="Pracujemy właśnie nad tą usługą. Wkrótce będzie znów dostępna.",
        read_only_title="Tylko do odczytu na czas prac",
        read_only_message="Wszystko można nadal przeglądać, ale chwilowo niczego nie można zmienić.",
        until="Przewidywany koniec: {time}",
        waiting="Ta strona wróci sama, gdy tylko usługa znów zacznie działać.",
    ),
    "pt": Translation(
        title="Em manutenção",
        message="Estamos a trabalhar neste serviço. Voltará a estar disponível em breve.",
        read_only_title="Só de leitura durante a manutenção",
        read_only_message="Tudo pode continuar a ser consultado, mas de momento nada pode ser alterado.",
        until="Fim previsto: {time}",
        waiting="Esta página regressa sozinha assim que o serviço voltar.",
    ),
    "ja": Translation(
        title="メンテナンス中",
        message="現在、サービスのメンテナンスを行っています。まもなく再開します。",
        read_only_title="メンテナンスのため閲覧のみ",
        read_only_message="閲覧は引き続きご利用いただけますが、現在は変更できません。",
        until="終了予定：{time}",
        waiting="サービスが再開すると、このページは自動的に元に戻ります。",
    ),
    "zh": Translation(
        title="正在维护",
        message="我们正在维护此服务，很快就会恢复。",
        read_only_title="维护期间只读",
        read_only_message="所有内容仍可查看，但暂时无法更改。",
        until="预计结束时间：{time}",
        waiting="服务恢复后，此页面会自动返回。",
    ),
    "ar": Translation(
        title="الخدمة قيد الصيانة",
        message="نعمل على هذه الخدمة الآن، وستعود قريبًا.",
        read_only_title="للقراءة فقط أثناء الصيانة",
        read_only_message="لا يزال بإمكانك القراءة، لكن لا يمكن تغيير أي شيء في الوقت الحالي.",
        until="الانتهاء المتوقع: {time}",
        waiting="تعود هذه الصفحة تلقائيًا فور عودة الخدمة.",
        right_to_left=True,
    ),
}
"""The translations, by language tag (BCP 47)."""
