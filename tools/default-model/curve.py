"""Draw curve.jsonl (training loss; held-out bits per byte, English and Chinese) as a small SVG.

    python curve.py out.svg
"""

import json
import sys
from pathlib import Path

from common import CACHE

rows = [json.loads(line) for line in (CACHE / "curve.jsonl").read_text().splitlines()]
# After an interruption some steps stand there twice: the later run is the one that counts.
rows = sorted({(r["step"], "loss" in r): r for r in rows}.values(), key=lambda r: r["step"])
train = [(r["tokens"] / 1e6, r["loss"]) for r in rows if "loss" in r]
per_step = max(r["tokens"] for r in rows if "tokens" in r) / max(r["step"] for r in rows if "tokens" in r) / 1e6
heldout = {k: [(r["step"] * per_step, r[f"heldout_{k}"]) for r in rows if f"heldout_{k}" in r] for k in ("en", "zh")}

W, H, LEFT, BOTTOM, GAP = 720, 260, 44, 34, 60
width = (W - 2 * LEFT - GAP + 20) / 2
end = max(x for x, _ in train)


def panel(at, title, lines):
    values = [y for _, points in lines for _, y in points]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    x = lambda v: at + v / end * width
    y = lambda v: 30 + (high - v) / (high - low) * (H - 30 - BOTTOM)
    out = [f'<text x="{at}" y="18" class="t">{title}</text>']
    for i in range(5):
        v = low + (high - low) * i / 4
        out.append(f'<path d="M{at} {y(v):.1f}h{width:.1f}" class="g"/><text x="{at - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.2f}</text>')
    for i in range(5):
        v = end * i / 4
        out.append(f'<text x="{x(v):.1f}" y="{H - 14}" text-anchor="middle">{v:.1f}M</text>')
    for (name, points), colour in zip(lines, ("#2563eb", "#c2410c")):
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        out.append(f'<text x="{x(points[-1][0]) - 4:.1f}" y="{y(points[-1][1]) - 8:.1f}" fill="{colour}" text-anchor="end">{name}</text>')
    return "\n".join(out)


svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="system-ui,sans-serif" font-size="11">
<style>text{{fill:#555}}.t{{font-size:13px;fill:#222}}.g{{stroke:#ddd}}</style>
<rect width="{W}" height="{H}" fill="#fff"/>
{panel(LEFT, "training loss (nats per token)", [("", train)])}
{panel(LEFT + width + GAP, "held-out bits per byte (a sample)", [("English", heldout["en"]), ("Chinese", heldout["zh"])])}
<text x="{W / 2}" y="{H - 2}" text-anchor="middle">training tokens</text>
</svg>
"""
Path(sys.argv[1]).write_text(svg)
