"""What people call a sampler, from the description that its rows hold (`harness.sweep.samplers.SamplerSpec`)."""

import json
from functools import cache
from typing import Any, NamedTuple

NAMES = {
    "zeros": "forecast zeros",
    "predict_last": "predict last",
    "row_above": "row above",
    "fixed_point": "fixed point",
    "fixed_point_above": "fixed point above",
    "most_likely": "most likely",
    "jacobi": "Jacobi",
    "gs_jacobi": "GS-Jacobi",
    "jacobi_gs": "Jacobi-GS",
    "cached_sequential": "cached sequential",
    "sjd": "SJD",
    "scd": "SCD",
    "pac": "SJD-PAC",
}
DECISION = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
DECISION |= {"guidance": "guidance", "context": "class"}
LEARNED, DRAFTED = ("learned", "gated"), ("sjd", "scd", "pac")
FRESH = "fresh noise: "
"""Starts the names of samplers that are exact in law only."""
ANCESTRAL, PAPER = "ancestral", "fixed point"
"""The names of what others are compared with: ancestral sampling, and the paper's algorithm with nothing learned."""


class Named(NamedTuple):
    """A sampler for people.

    Attributes:
        label: its name, with everything that tells it from others.
        base: the same without what changes its samples.
        decision: what does (temperature, top-k, ...); "" for the ARM's own distribution.
        family: "ancestral", "paper" (whole batches of the paper's algorithm), "others" (samplers of other papers) or
            "ours" (windows, slots, dropped samples); "law" if it is exact in law only.
    """

    label: str
    base: str
    decision: str
    family: str


@cache
def named(description: str) -> Named:
    """The name and the family of a sampler, from the JSON in its rows."""
    settings: dict[str, Any] = json.loads(description)
    name = settings.get("sampler") or settings["forecaster"]
    parts = [NAMES.get(name, name)]
    if name in LEARNED:
        parts.append(f"T={settings.get('horizon')}")
    parts += [f"{key} {value}" for key, value in settings.get("options", {}).items()]
    if "coupling" in settings:
        parts.append(settings["coupling"])
    if "first" in settings:
        parts.append("row above first")
    if "block" in settings:
        parts.append(f"block {settings['block']}")
    window = settings.get("window")
    if window is not None:
        parts.append(
            {"image": "finished dropped", "row": "row window", "auto": "auto window"}.get(window, f"window {window}")
        )
    if settings.get("stream"):
        parts.append("slots")
    if settings.get("certified"):
        parts.append("certified")
    if "draft_dtype" in settings:
        parts.append(f"{settings['draft_dtype']} drafts")
    if settings.get("native"):
        parts.append("in C++")
    base = (FRESH if settings.get("resampled") else "") + ", ".join(parts)
    decision = ", ".join(f"{text} {settings[key]}" for key, text in DECISION.items() if key in settings)
    return Named(f"{base}, {decision}" if decision else base, base, decision, _family(settings))


def _family(settings: dict[str, Any]) -> str:
    if settings.get("resampled") or settings.get("sampler") in DRAFTED:
        return "law"
    if "sampler" in settings:
        return "ancestral" if settings["sampler"] == "ancestral" else "others"
    return "ours" if settings.get("stream") or "window" in settings else "paper"


def rank(name: str) -> tuple[int, str]:
    """The order of samplers in tables and figures: the reference, the free forecasts, one's own, the learned ones."""
    known = [ANCESTRAL, *NAMES.values()]
    plain = name.split(", ")[0]
    if plain in known:
        return known.index(plain), name
    return len(known) + plain.startswith(LEARNED) + 2 * plain.startswith(FRESH), name
