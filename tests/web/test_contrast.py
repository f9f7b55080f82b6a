"""Text on its ground has at least 4.5 : 1 contrast (WCAG 2.2, 1.4.3), in both schemes: computed from style.css."""

from __future__ import annotations

import re

import pytest

from web.app import STATIC

TEXT = ("ink", "muted", "accent", "ok", "warn", "bad", "drain", "none")
GROUNDS = ("surface", "raised", "ground")
PAIRS = [(text, ground) for text in TEXT for ground in GROUNDS] + [
    *((text, f"{tone}-soft") for tone in ("warn", "bad", "drain") for text in ("ink", "muted", tone)),
    ("accent-ink", "accent"),
    ("surface", "bad"),
    ("surface", "ink"),
]


def schemes() -> dict[str, dict[str, str]]:
    light, _, dark = (STATIC / "style.css").read_text().partition("@media (prefers-color-scheme: dark)")
    token = re.compile(r"--([\w-]+): (#[0-9a-f]{3,6});")
    first = dict(token.findall(light))
    return {"light": first, "dark": first | dict(token.findall(dark))}


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    colours = schemes()[scheme]
    weak = []
    for text, ground in PAIRS:
        lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        ratio = (lighter + 0.05) / (darker + 0.05)
        if ratio < 4.5:
            weak.append(f"{text} on {ground}: {ratio:.2f}")
    assert weak == []
