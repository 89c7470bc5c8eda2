"""Small curves as SVG paths. Pure."""

from collections.abc import Sequence

WIDTH, HEIGHT = 240.0, 44.0
PAD = 2.0


def line(values: Sequence[float]) -> str:
    """Write the path of a curve through `values`, evenly spread; the highest touches the top."""
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in _points(values)) if values else ""


def area(values: Sequence[float]) -> str:
    """Write the path of the area below the curve."""
    if not values:
        return ""
    last = _points(values)[-1][0]
    return f"{line(values)} L{last:.1f} {HEIGHT:g} L0 {HEIGHT:g} Z"


def _points(values: Sequence[float]) -> list[tuple[float, float]]:
    top = max([*values, 1])
    step = WIDTH / max(1, len(values) - 1)
    return [(place * step, HEIGHT - PAD - value / top * (HEIGHT - 2 * PAD)) for place, value in enumerate(values)]
