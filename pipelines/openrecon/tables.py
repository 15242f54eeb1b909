"""The table of flat parameters as docs/open_recon.md has it."""

from __future__ import annotations

from pipelines.flat_parameter_table import TABLE


def parameter_rows() -> list[str]:
    """Rows of the table in docs/open_recon.md: name, property, values, default."""
    rows = []
    for parameter in TABLE:
        offered = parameter.listed or tuple(parameter.values or ())
        values = ", ".join(name.replace(",", "+") for name in offered)
        if parameter.several:
            values = f"{parameter.default}, or any of {', '.join(parameter.several)}"
        if parameter.values is None:
            step = "steps of 0.1" if parameter.kind == "double" else "whole numbers"
            values = f"{parameter.minimum:g} to {parameter.maximum:g}, {step}"
        values += f" ({parameter.unit})" if parameter.unit else ""
        rows.append(f"| `{parameter.id}` | `{', '.join(parameter.settings)}` | {values} | {parameter.default} |")
    return rows
