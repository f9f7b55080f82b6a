"""What all documents are made of: strict objects, kinds of fields, and how a wrong value is told. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62})")
MAX_SECONDS = 31 * 86400  # IPVS keeps timeouts as 32-bit jiffies: 2^31 at 1000 Hz is 24.8 days; a month is a typo


def invalid(message: str, hint: str = "") -> PydanticCustomError:
    """A validation error whose message is shown as it is (pydantic would put "Value error," in front)."""
    return PydanticCustomError("lbnode", "{message}", {"message": message, "hint": hint})


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
WholeSeconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
Port = Annotated[int, Field(ge=0, le=65535)]


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """`did you mean "weight"?`, or which words there are if none is close."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known: {', '.join(known)}" if known and len(known) <= 24 else ""
