"""Fonts that together have the letters of a figure."""

from __future__ import annotations

from matplotlib import font_manager

from src.panel import some

FONT, BOXES = "DejaVu Sans", "Last Resort High-Efficiency"  # matplotlib brings both; the latter has only boxes
FAR_EASTERN = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


def fonts_for(wanted: set[str]) -> tuple[list[str], set[str]]:
    """Font families that together have the letters: matplotlib takes each from the first family that has it.

    Beyond the default, fonts are opened one by one only while a letter is missing: those made for Chinese first, then
    whatever is installed.

    Returns
    -------
    families : list of str
    lacking : set of str
        Letters that no installed font has.
    """
    files = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.name != BOXES}
    families, lacking = [FONT], {letter for letter in wanted if letter.isprintable()} - has(files[FONT])
    for name in dict.fromkeys([*(name for name in FAR_EASTERN if name in files), *sorted(files)]):
        if not lacking:
            break
        if found := lacking & has(files[name]):
            families.append(name)
            lacking -= found
    return families, lacking


def has(file: str) -> set[str]:
    """The letters of a font; none where it cannot be opened."""
    try:
        return {chr(code) for code in font_manager.get_font(file).get_charmap()}
    except (OSError, RuntimeError):
        return set()


def no_font(lacking: set[str]) -> list[str]:
    """What is said of letters that the figures show as boxes."""
    if not lacking:
        return []
    return [f"figures lack a font for {some(sorted(lacking))}: install one that has them, such as Noto Sans CJK"]
