"""Arrays and models: Fourier transforms, low rank, sparsity, generative priors, posterior sampling."""

import os

# Worker threads of torch and OpenBLAS spin while they wait for each other; where other processes (or other gadgets'
# threads) want the cores too, that makes a reconstruction tens of times slower. numpy only multiplies small matrices
# here. Read when torch and numpy are first imported; set them yourself to have it otherwise.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
