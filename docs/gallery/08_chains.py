# %% [markdown]
# # A chain as XML and in Python
#
# A chain is a list of gadgets that pass data on, one to the next: prewhiten, sort lines, compress coils, make
# maps, reconstruct, write DICOM. It is an XML file that a Gadgetron server, `genrecon serve` and `genrecon
# replay` read alike. In Python it is an object whose properties you set.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pipelines import BRAIN_SCAN, Chain, ReconError, brain_scan, read_chain, read_images, replay, write_raw

folder = Path(tempfile.mkdtemp())
raw = folder / "scan.h5"
write_raw(raw, brain_scan(replace(BRAIN_SCAN, matrix=(96, 96, 1), slices=1, acceleration=2)))

# %% [markdown]
# ## Read one
#
# `genrecon chains` lists the chains that come with the package. This is the part of `cg_sense` that reconstructs:

# %%
chain = read_chain("cg_sense")
text = chain.to_xml().decode()
first = text.index("<external>", text.index("BucketToBuffer"))
print(text[first : text.index("</external>", first) + len("</external>")])

# %% [markdown]
# ## Change it
#
# `set` takes the name of a gadget, of a property, and a value as text. On the command line the same is `--set
# generative_recon.method=grappa`. The chain knows its gadgets, and refuses others in one line:

# %%
grappa = read_chain("cg_sense")
grappa.set("generative_recon", "method", "grappa")
grappa.set("generative_recon", "output", "magnitude,phase")
try:
    grappa.set("generative_reckon", "method", "grappa")
except ReconError as error:
    print(error)

# %% [markdown]
# ## Run it, and keep it
#
# `replay` takes the object; a file of it does the same tomorrow, and on a server: `genrecon serve --chains
# FOLDER`.

# %%
results = {
    "cg_sense": replay(raw, chain, folder / "cg_sense"),
    "grappa": replay(raw, grappa, folder / "grappa"),
}
(folder / "my_grappa.xml").write_bytes(grappa.to_xml())
again = Chain((folder / "my_grappa.xml").read_bytes(), "my_grappa")
results["grappa from the file"] = replay(raw, again, folder / "again")

figure, axes = plt.subplots(1, 4, figsize=(11, 3.1))
for one, (name, result) in zip(axes, results.items(), strict=False):
    image = next(read_images(result.folder, series=1)).data[0, 0]
    one.imshow(image, cmap="gray", vmax=np.percentile(image, 99.8))
    one.set_title(name)
    print(f"{name}: series {', '.join(f'{number} ({entry.method})' for number, entry in result.series.items())}")
first, second = (next(read_images(folder / name, series=1)).data for name in ("grappa", "again"))
assert np.array_equal(first, second)
phase = next(read_images(folder / "grappa", series=max(results["grappa"].series)))
axes[3].imshow(phase.data[0, 0], cmap="gray")
axes[3].set_title("grappa, phase")
for one in axes:
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Where the time goes
#
# Each gadget runs in a thread of its own, so that slices overlap. `timings` says how long each was busy.

# %%
for timing in sorted(results["cg_sense"].timings, key=lambda entry: -entry.busy)[:5]:
    print(f"{timing.name:35} {timing.busy:6.3f} s")
