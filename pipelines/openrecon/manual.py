"""The PDF of a package: instructions for the user of the scanner, from docs/open_recon.md and the label."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gadgets.errors import ReconError
from pipelines.openrecon.label import package_name
from priors.extras import require

PAGE = Path("docs") / "open_recon.md"
BEGIN, END = "<!-- manual begin -->", "<!-- manual end -->"


def write_manual(path: Path, source: Path, label: Mapping[str, Any]) -> None:
    """Write the PDF.

    Parameters
    ----------
    path : of the PDF
    source : copy of this project, with its documentation
    label : whose names and parameters it has

    Raises
    ------
    ReconError
        The documentation is not that of this version.
    """
    require("fpdf", "markdown_it")
    from fpdf import FPDF
    from markdown_it import MarkdownIt

    text = (source / PAGE).read_text()
    if BEGIN not in text or END not in text:
        raise ReconError(f"{source / PAGE}: the part for the manual is not marked; take the page of this version")
    body = text.partition(BEGIN)[2].partition(END)[0]
    general = label["general"]
    about = general["regulatory_information"]
    title = f"{general['id']} {general['version']}"
    pdf = FPDF(format="A4")
    pdf.set_title(title)
    pdf.set_author(general["vendor"])
    pdf.set_margins(20, 18)
    pdf.set_auto_page_break(True, 18)
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    pdf.write_html(_latin(_front(label, title, about)))
    pdf.write_html(_latin(MarkdownIt("commonmark").enable("table").render(body)))
    pdf.add_page()
    pdf.write_html(_latin(_parameters(label)))
    pdf.output(str(path))


def _front(label: Mapping[str, Any], title: str, about: Mapping[str, str]) -> str:
    general = label["general"]
    rows = {"Package": package_name(label), "Vendor": general["vendor"]}
    rows |= {name.replace("_", " ").capitalize(): value for name, value in about.items() if value}
    table = "".join(f"<p><b>{_escaped(name)}:</b> {_escaped(value)}</p>" for name, value in rows.items())
    return f"<h1>{_escaped(title)}</h1><p>{_escaped(general['information']['en'])}</p>{table}"


def _parameters(label: Mapping[str, Any]) -> str:
    """All parameters of the label, those of the site among them."""
    parts = ["<h2>Parameters at the console</h2>"]
    for parameter in label["parameters"]:
        words = parameter.get("information", {}).get("en", "")
        parts.append(f"<p><b>{_escaped(parameter['label']['en'])}</b> ({parameter['id']}): {_escaped(words)}</p>")
        parts.append(f"<p>{_escaped(allowed(parameter))}</p>")
    return "".join(parts)


def allowed(parameter: Mapping[str, Any]) -> str:
    """Values and default of a parameter of a label, in words."""
    unit = f" {parameter['unit']['en']}" if "unit" in parameter else ""
    default = parameter.get("default", "")
    if parameter["type"] == "choice":
        names = {value["id"]: value["name"]["en"] for value in parameter["values"]}
        words = ", ".join(name if name == text else f"{name} ({text})" for name, text in names.items())
        return f"One of: {words}. Default: {default}."
    if parameter["type"] in ("int", "double"):
        return f"From {parameter['minimum']:g} to {parameter['maximum']:g}{unit}. Default: {default:g}."
    if parameter["type"] == "boolean":
        return f"On or off. Default: {'on' if default else 'off'}."
    return f"A text. Default: {default or 'empty'}."


def _escaped(text: str) -> str:
    return html.escape(text)


def _latin(text: str) -> str:
    """With the letters that the PDF's own fonts have; others become question marks."""
    return text.encode("latin-1", "replace").decode("latin-1")
