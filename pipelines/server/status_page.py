"""The status page: an overview of a server as HTML."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def status_page(overview: Mapping[str, Any]) -> str:
    """The page of what `overview` returns."""
    headline, state_class = _headline(overview)
    template = _templates.get_template("status.html.j2")
    return template.render(**overview, headline=headline, state_class=state_class, title=f"{headline} – genrecon")


@functools.cache
def page_file(name: str) -> bytes:
    """A style sheet, script or picture of the page."""
    return (resources.files("pipelines.server") / "page" / name).read_bytes()


def duration(seconds: float) -> str:
    """A time as people say it: "0.42 s", "35 s", "2 min 5 s", "1 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 and whole < 600 else f"{round(whole / 60)} min"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def clock(moment: float) -> str:
    """Time of day of a time in seconds since 1970."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _headline(overview: Mapping[str, Any]) -> tuple[str, str]:
    """The state in a few words, and the class of its colour."""
    if overview["state"] == "stopping":
        return "is stopping", "doubt"
    if overview["state"] != "ok":
        return "is not ready", "bad"
    running, waiting = len(overview["running"]), len(overview["waiting"])
    if not running and overview["late"]:
        return "is ready, late images are made", "good"
    if not running:
        return "is ready", "good"
    text = f"runs {running} scans" if running > 1 else "runs a scan"
    return (f"{text}, {waiting} wait{'s' if waiting == 1 else ''}" if waiting else text), "busy"


_templates = Environment(
    loader=PackageLoader("pipelines.server", "page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"duration": duration, "clock": clock}
