"""The folder of a package, what its scripts make of it with a stand-in of docker, and what a site adds."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pypdf
import pytest

from gadgets.errors import ReconError
from pipelines.chain import read_chain, shipped_xml
from pipelines.flat_parameter_table import TABLE
from pipelines.openrecon.label import LABEL_NAME
from pipelines.openrecon.package import write_package
from pipelines.openrecon.schema import MOST_PARAMETERS, check_label
from pipelines.openrecon.site import Site, check_properties, read_site
from pipelines.openrecon.tables import parameter_rows
from pipelines.server.listener import Server
from tests.paths import ROOT
from tests.pipelines.server.serving import address, serving

MAP_SETS = {
    "id": "mapsets",
    "type": "int",
    "label": {"en": "Map sets"},
    "minimum": 1,
    "maximum": 2,
    "default": 2,
    "property": "espirit.map_sets",
}
DIGEST = 64 * "a"
NAME = "OpenRecon_MySite_genrecon_V1.2.3"
# Stands for docker: tells its version, writes a tar with a manifest, writes down its arguments.
DOCKER = f"""#!/bin/sh
echo "$@" >> "$DOCKER_LOG"
case $1 in
version) echo "$DOCKER_VERSION" ;;
save) cd "$(dirname "$3")" && echo '[{{"Config":"{DIGEST}.json","RepoTags":null}}]' > manifest.json &&
    tar -cf "$3" manifest.json && rm manifest.json ;;
esac
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a site with a parameter and a chain of its own."""
    place = tmp_path_factory.mktemp("package")
    own = place / "own.xml"
    own.write_bytes(shipped_xml("cg_sense"))
    site = Site(general={"vendor": "MySite", "version": "1.2.3"}, parameters=(MAP_SETS,), leave_out=("averages",))
    write_package(place / "out", [str(own), "svd_wkgm"], site, fire=True)
    return place / "out"


def label_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "OpenReconLabel.json").read_text()))


@pytest.mark.slow
def test_the_label_offers_what_was_asked_for(folder: Path) -> None:
    label = label_of(folder)
    check_label(label)
    parameters = {parameter["id"]: parameter for parameter in label["parameters"]}
    expected = ["config", *(parameter.id for parameter in TABLE if parameter.id != "averages"), "mapsets"]
    assert list(parameters) == expected and len(expected) <= MOST_PARAMETERS
    assert [value["id"] for value in parameters["config"]["values"]] == ["own", "svd_wkgm"]
    assert parameters["config"]["default"] == "own" and "property" not in parameters["mapsets"]
    assert label["general"]["vendor"] == "MySite"
    assert label["general"]["regulatory_information"]["production_identifier"] == "1.2.3"


def test_the_recipe_carries_label_chain_and_parameters(folder: Path) -> None:
    text = (folder / "Containerfile").read_text()
    (encoded,) = re.findall(rf'^LABEL "{LABEL_NAME}"="([^"]+)"$', text, re.MULTILINE)
    assert json.loads(base64.b64decode(encoded)) == label_of(folder)
    files = dict(re.findall(r"^RUN echo (\S+) \| base64 -d > /etc/genrecon/(\S+)$", text, re.MULTILINE))
    files = {name: base64.b64decode(data) for data, name in files.items()}
    assert files["chains/own.xml"] == shipped_xml("cg_sense")
    assert json.loads(files["site.json"]) == {"parameters": [MAP_SETS]}
    assert 'ENV GENRECON_OPTIONS="--default-chain own --memory 8"' in text
    stages = re.findall(r"^FROM .*$", text, re.MULTILINE)
    assert stages[-1] == "FROM installed AS scanner" and "USER" not in text  # Open Recon runs containers as root
    whole = (ROOT / "docs" / "Containerfile").read_text()
    assert [line for line in text.splitlines() if line not in whole.splitlines() and line[:4] in ("COPY", "FROM")] == []
    assert 'CMD ["/bin/sh", "-c", "ldconfig; exec genrecon serve' in text


def test_a_gpu_is_in_label_and_recipe(tmp_path: Path) -> None:
    write_package(tmp_path / "out", [], Site(), gpu=True)
    assert label_of(tmp_path / "out")["reconstruction"]["can_use_gpu"] is True
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cu118" in (tmp_path / "out" / "Containerfile").read_text()


def test_the_manual_names_every_parameter_and_its_values(folder: Path) -> None:
    reader = pypdf.PdfReader(folder / f"{NAME}.pdf")
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    for parameter in label_of(folder)["parameters"]:
        assert f"{parameter['label']['en']} ({parameter['id']})" in text
    for words in ("not for diagnosis", NAME, "compressed sensing (wavelets)", "unknown parameter", "From 1 to 2."):
        assert words in text
    assert "?" not in text  # a letter that the PDF's fonts do not have


def test_every_row_of_the_docs_is_that_of_the_table() -> None:
    page = (ROOT / "docs" / "open_recon.md").read_text().splitlines()
    assert [row for row in parameter_rows() if row not in page] == []
    names = {line.split("`")[1] for line in page if re.match(r"\| `\w+` \| `\w+\.\w+` \|", line)}
    assert names == {parameter.id for parameter in TABLE}


def run_script(script: Path, tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DOCKER_LOG": str(tmp_path / "docker.log"),
        "DOCKER_VERSION": "24.0.9",
        **environment,
    }
    return subprocess.run(
        ["sh", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the program zip: install it to run this test")
def test_build_makes_the_archives_that_scanners_take(folder: Path, tmp_path: Path) -> None:
    result = run_script(folder / "build.sh", tmp_path)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(folder / f"{NAME}.zip") as archive:
        assert sorted(archive.namelist()) == [f"{NAME}.pdf", f"{NAME}.tar"]
        assert archive.read(f"{NAME}.pdf") == (folder / f"{NAME}.pdf").read_bytes()
    calls = (tmp_path / "docker.log").read_text().splitlines()
    image = "openrecon_mysite_genrecon:V1.2.3"
    assert calls[1] == f"build --platform linux/amd64 -t {image} -f {folder}/Containerfile {ROOT}"
    result = run_script(folder / "build.sh", tmp_path, "va70", DOCKER_VERSION="28.2.2")
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(folder / f"{NAME}.OpenReconPackage.zip") as archive:
        assert sorted(archive.namelist()) == ["ApplSpec.json", "Container.tar", "Manual.pdf", "Properties.json"]
        properties = json.loads(archive.read("Properties.json"))
        assert json.loads(archive.read("ApplSpec.json")) == label_of(folder)
    assert properties["image_digest"] == DIGEST and properties["image_name"] == "local/genrecon:latest"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", properties["application_guid"])
    assert not list(folder.glob("build.*/"))


@pytest.mark.parametrize(
    ("arguments", "environment", "match"),
    [
        (["va50"], {}, "'va50' is unknown; give va60 or va70"),
        ([], {"DOCKER_VERSION": "28.2.2"}, "read images of Docker 24 and older, this is 28.2.2"),
        ([], {"SOURCE": "/nowhere"}, "/nowhere is no copy of gadgetron-genrecon; set SOURCE"),
        ([], {"ENGINE": "/nowhere/docker"}, "service does not answer"),
    ],
)
def test_build_ends_with_what_is_wrong(
    arguments: list[str], environment: dict[str, str], match: str, folder: Path, tmp_path: Path
) -> None:
    result = run_script(folder / "build.sh", tmp_path, *arguments, **environment)
    assert result.returncode != 0 and match in result.stderr


@pytest.mark.skipif(not shutil.which("debugfs"), reason="needs the program debugfs: install e2fsprogs to run this test")
def test_the_chroot_image_holds_the_container_and_its_start_script(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text("made up\n")
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(tmp_path / "etc", "etc")
    result = run_script(folder / "fire" / "chroot.sh", tmp_path, ROOTFS_TAR=str(tmp_path / "root.tar"), FREE_MIB="8")
    assert result.returncode == 0, result.stderr
    image = folder / "fire" / "FIRE_MySite_genrecon_V1.2.3.img"

    def look(command: str) -> str:
        return subprocess.run(["debugfs", "-R", command, str(image)], capture_output=True, text=True, check=True).stdout

    assert look("cat /etc/os-release") == "made up\n"
    assert "genrecon serve --bind 0.0.0.0 --port 9002" in look("cat /usr/local/bin/start-genrecon.sh")
    assert "Device major/minor number: 01:03" in look("stat /dev/null") and "Mode:  0666" in look("stat /dev/null")
    assert image.name in (folder / "fire" / "fire.ini").read_text()
    sent = json.loads((folder / "fire" / "genrecon.json").read_text())["parameters"]
    assert sent["config"] == "own" and sent.keys() == {one["id"] for one in label_of(folder)["parameters"]}


def test_scripts_are_valid_shell(folder: Path) -> None:
    for script in folder.rglob("*.sh"):
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0 and os.access(script, os.X_OK)


def test_a_site_s_parameter_reaches_its_gadget(raw: Path, tmp_path: Path) -> None:
    from gadgets.images import meta_of, meta_values
    from pipelines.replay import read_images
    from pipelines.send import send

    (tmp_path / "site.json").write_text(json.dumps({"parameters": [MAP_SETS]}))
    server: Server
    with serving(parameters=read_site(tmp_path / "site.json").flat()) as server:
        for value in ("1", "2"):
            send(raw, "cg_sense", address(server), out=tmp_path / value, parameters={"mapsets": value}, timeout=60)
            image = next(read_images(tmp_path / value, 1))
            (settings,) = meta_values(meta_of(image.attribute_string), "GenreconSettings")
            assert f"map_sets={value}" in settings.split()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "it is not JSON"),
        ("[]", "a JSON object with any of: general, reconstruction, parameters, leave_out"),
        ('{"other": 1}', "a JSON object with any of"),
        ('{"parameters": {}}', "parameters must be a JSON list"),
        ('{"leave_out": ["mapsets"]}', "leave_out has mapsets; the label's own parameters are method, quality"),
        (json.dumps({"parameters": [{**MAP_SETS, "property": "map_sets"}]}), 'its "property" must be gadget.property'),
        (json.dumps({"parameters": [{"id": "x"}]}), 'an object with "property": "gadget.property"'),
        (
            json.dumps({"parameters": [{**MAP_SETS, "id": "map_sets"}]}),
            "parameter 1: its id must be letters and digits",
        ),
        (json.dumps({"parameters": [{**MAP_SETS, "default": 7}]}), "its default must be from minimum to maximum"),
        (json.dumps({"parameters": [{**MAP_SETS, "id": "samples"}]}), "the id samples is taken"),
        (json.dumps({"parameters": [{**MAP_SETS, "id": "config"}]}), "the id config is taken"),
    ],
)
def test_additions_that_are_refused(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text(content)
    with pytest.raises(ReconError) as error:
        read_site(path)
    assert match in str(error.value) and str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"property": "nobody.map_sets"}, "no chain has the gadget 'nobody'"),
        ({"property": "espirit.nothing"}, "unknown property 'nothing'"),
        ({"property": "generative_recon.training_cache", "type": "string"}, "is not for clients"),
        ({"maximum": 9}, "property 'map_sets' is '9'; it must be a whole number from 1 to 4"),
    ],
)
def test_properties_of_additions_are_checked(changes: dict[str, Any], match: str) -> None:
    site = Site(parameters=({**MAP_SETS, **changes},))
    with pytest.raises(ReconError, match=match):
        check_properties(site, [read_chain("cg_sense")])


def test_nothing_is_left_of_a_package_that_failed(tmp_path: Path) -> None:
    for site, configs in ((Site(general={"vendor": "A B"}), []), (Site(), ["missing"]), (Site(general={"id": 3}), [])):
        with pytest.raises(ReconError):
            write_package(tmp_path / "out", configs, site)
    with pytest.raises(ReconError, match="no copy of this project"):
        write_package(tmp_path / "out", [], Site(), tmp_path)
    assert list(tmp_path.iterdir()) == []
