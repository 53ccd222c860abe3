"""Text from models and data on a terminal: control characters are shown, never obeyed.

An answer that holds ESC could recolour, retitle or rewrite what a person has on the screen; one that holds a sign which
turns the direction of writing could show another text than it is.
"""

_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_SHOWN[0x7F] = "␡"
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Unicode's embeddings, overrides and isolates: https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters"""
_SHOWN |= {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)} | {code: f"\\u{code:04x}" for code in _DIRECTIONS}
_SHOWN |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}  # halves of pairs, which no terminal takes


def visible(text: str) -> str:
    """`text` with its control characters as signs that stand for them; tabs and line feeds stay."""
    return text.translate(_SHOWN)
