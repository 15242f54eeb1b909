# %% [markdown]
# # Server and client
#
# A scanner does not write files: it sends its lines over the network while it measures, and wants images back.
# `genrecon serve` takes such scans, from Gadgetron's client and from Siemens FIRE alike. Here both ends run on
# this machine.

# %%
import atexit
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pipelines import BRAIN_SCAN, brain_scan, read_images, write_raw

folder = Path(tempfile.mkdtemp())
genrecon = [sys.executable, "-m", "pipelines.cli"]  # in a terminal: genrecon
raw = folder / "scan.h5"
write_raw(raw, brain_scan(replace(BRAIN_SCAN, matrix=(96, 96, 1), acceleration=2)))

# %% [markdown]
# ## Start the server
#
# In a terminal: `genrecon serve --status-port 9003`. It listens on port 9002 of this machine alone; `--bind
# 0.0.0.0` would open it to the network. With `--port 0` it takes any free port, and says which.

# %%
log = folder / "serve.log"
with log.open("w") as written:
    server = subprocess.Popen([*genrecon, "serve", "--port", "0", "--status-port", "0"], stderr=written, cwd=folder)
atexit.register(server.kill)  # whatever happens below
while not (ready := re.search(r"serving on \S+ port (\d+)", log.read_text())):
    if server.poll() is not None:
        raise RuntimeError(log.read_text())
    time.sleep(0.2)
port = ready[1]
status = re.search(r"http://\S+:\d+/", log.read_text())[0]
print(f"the server listens on port {port}")

# %% [markdown]
# ## Send a scan
#
# In a terminal: `genrecon send scan.h5 -c cg_sense -o out`. The client names a chain that the server has, or
# sends one of its own. Images come back one by one, as they are finished.

# %%
sent = subprocess.run(
    [*genrecon, "send", raw, "-c", "cg_sense", "--port", port, "-o", folder / "out"],
    check=True,
    capture_output=True,
    text=True,
)
print(sent.stdout)
images = [image.data[0, 0] for image in read_images(folder / "out", series=1)]
figure, axes = plt.subplots(1, len(images), figsize=(9, 3.2))
for one, image in zip(axes, images, strict=True):
    one.imshow(image, cmap="gray", vmax=np.percentile(image, 99.8))
    one.set_axis_off()
plt.show()

# %% [markdown]
# ## Ask for something else
#
# Properties can be set for one scan. Flat names, without the gadget, are those that Open Recon and FIRE send.

# %%
changed = subprocess.run(
    [*genrecon, "send", raw, "--port", port, "-o", folder / "grappa", "--set", "method=grappa"],
    check=True,
    capture_output=True,
    text=True,
)
print(changed.stdout)

# %% [markdown]
# ## Look at the status
#
# The status page shows progress, thumbnails, noise and warnings of each scan; `scans.json` has the same for
# scripts, `metrics` for Prometheus.

# %%
with urllib.request.urlopen(f"{status}scans.json", timeout=10) as answer:
    scans = json.load(answer)
print(json.dumps(scans, indent=1)[:600])

# %% [markdown]
# ## Stop it
#
# On SIGTERM or Ctrl-C the server finishes the scans that run, and refuses new ones.

# %%
server.terminate()
print(f"the server ended with code {server.wait(60)}")
print(log.read_text()[-600:])
