"""The Open Recon label of a package: what the console shows and what the container needs."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pipelines.chain import shipped_chains
from pipelines.flat_parameter_table import TABLE
from pipelines.flat_parameters import FlatParameter
from pipelines.openrecon.schema import check_label
from pipelines.openrecon.site import Site, label_part

LABEL_NAME = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
PORT = 9002
MEMORY_MIB = 8192
GPU_MEMORY_MIB = 4096
CORES = 4
RESEARCH = "Research software, not for diagnosis."


def make_label(site: Site, chains: Mapping[str, str], gpu: bool = False) -> dict[str, Any]:
    """The label, checked against the schema.

    Parameters
    ----------
    site : its additions
    chains : names of the chains that the console offers, with what they do; the first is the default
    gpu : whether the container can use a GPU

    Raises
    ------
    ReconError
        The additions break a rule of the schema.
    """
    general = {"id": "genrecon", "version": metadata.version("gadgetron-genrecon"), "vendor": "genrecon"}
    general |= {key: value for key, value in site.general.items() if key in general}
    about = {
        "device_trade_name": general["id"],
        "production_identifier": general["version"],
        "manufacturer_address": "",
        "made_in": "",
        "manufacture_date": f"{datetime.date.today():%Y/%m/%d}",
        "material_number": f"{general['id']}_{general['version']}",
        "gtin": "",
        "udi": "",
        "safety_advices": RESEARCH,
        "special_operating_instructions": "See the manual.",
        "additional_relevant_information": "",
    }
    own = site.general.get("regulatory_information", {})
    words = f"Images from raw data: SENSE, GRAPPA, compressed sensing and generative priors. {RESEARCH}"
    label = {
        "general": {
            "name": {"en": general["id"]},
            "information": {"en": words},
            **general,
            **site.general,
            "regulatory_information": about | own if isinstance(own, dict) else own,
        },
        "reconstruction": {
            "transfer_protocol": {"protocol": "ISMRMRD", "version": "1.4.1"},
            "port": PORT,
            "emitter": "raw",
            "injector": "image",
            "can_process_adjustment_data": False,
            "can_use_gpu": gpu,
            "min_count_required_gpus": 0,
            "min_required_gpu_memory": GPU_MEMORY_MIB if gpu else 0,
            "min_required_memory": MEMORY_MIB,
            "min_count_required_cpu_cores": CORES,
            "content_qualification_type": "RESEARCH",
            "require_readout_filter_off": True,  # it would colour the noise
            "channel_compression": {"require_state": "off"},  # the chains compress behind the prewhitening
            **site.reconstruction,
        },
        "parameters": [
            _config(chains),
            *(label_parameter(parameter) for parameter in TABLE if parameter.id not in site.leave_out),
            *(label_part(parameter) for parameter in site.parameters),
        ],
    }
    check_label(label, "label")
    return label


def label_parameter(parameter: FlatParameter) -> dict[str, Any]:
    """A flat parameter as the label has it."""
    found: dict[str, Any] = {
        "id": parameter.id,
        "type": parameter.kind,
        "label": {"en": parameter.label},
        "information": {"en": parameter.information},
        "default": parameter.default,
    }
    if parameter.values is not None:
        offered = {name: parameter.values[name] for name in parameter.listed or parameter.values}
        found["values"] = [{"id": name, "name": {"en": words}} for name, (words, _) in offered.items()]
    if parameter.kind in ("int", "double"):
        found |= {"minimum": parameter.minimum, "maximum": parameter.maximum}
    if parameter.kind == "int":
        found |= {key: int(found[key]) for key in ("minimum", "maximum", "default")}
    if parameter.unit:
        found["unit"] = {"en": parameter.unit}
    return found


def encoded(label: Mapping[str, Any]) -> str:
    """The label's JSON in Base64, as the image carries it."""
    return base64.b64encode(json.dumps(label, indent=2).encode()).decode()


def package_name(label: Mapping[str, Any]) -> str:
    """Name of the package's files: OpenRecon_VENDOR_NAME_VVERSION."""
    general = label["general"]
    return f"OpenRecon_{general['vendor']}_{general['id']}_V{general['version']}"


def offered_chains() -> dict[str, str]:
    """Names of the shipped chains that a console offers, with what they do."""
    chains = shipped_chains()
    return {name: chains[name] for name in ("cg_sense", "l1_wavelet", "svd_wkgm", "wkgm", "hkgm")}


def _config(chains: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": "config",
        "type": "choice",
        "label": {"en": "Chain"},
        "information": {"en": "The chain of reconstruction steps; the other parameters change it."},
        "default": next(iter(chains)),
        "values": [{"id": name, "name": {"en": name}} for name in chains],
    }
