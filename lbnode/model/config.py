"""The resolved configuration, and what was wrong in the documents that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lbnode.model.identity import ServiceId
from lbnode.model.services import VirtualService
from lbnode.model.settings import Settings
from lbnode.model.vip_groups import VipGroup


@dataclass(frozen=True, slots=True)
class Config:
    """The fully resolved configuration of the cluster at one store revision."""

    revision: int = 0
    services: Mapping[ServiceId, VirtualService] = field(default_factory=dict)
    vip_groups: Mapping[str, VipGroup] = field(default_factory=dict)
    settings: Settings = Settings()


class Severity(StrEnum):
    ERROR = "error"  # the object was not taken over; its last good state stays
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in what people wrote: where (store key, or file:line:col), which field, why, what to do."""

    where: str
    field: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        text = f"{self.where}: {self.field}: {self.message}" if self.field else f"{self.where}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text
