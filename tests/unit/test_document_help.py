"""`lbctl apply --help` names every field that a document may have."""

from __future__ import annotations

import re

import pytest

from lbnode.cli.lbctl.fields import FIELDS
from lbnode.config.schema import SCHEMAS, SyncDaemonDocument
from lbnode.config.vip_group_document import TrackDocument
from lbnode.model import SCHEDULERS, flags_of


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), TrackDocument, SyncDaemonDocument])
def test_every_field_is_named(schema: type) -> None:
    words = set(re.findall(r"[a-z_]+", FIELDS))
    assert set(schema.model_fields) - words == set()  # type: ignore[attr-defined]


def test_every_scheduler_and_flag_is_named() -> None:
    words = set(FIELDS.replace(",", " ").split())
    assert {flag for scheduler in SCHEDULERS for flag in flags_of(scheduler)} | set(SCHEDULERS) <= words
