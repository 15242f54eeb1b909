"""Arrays and models: Fourier transforms, low rank, sparsity, generative priors, posterior sampling."""

from priors.environment import ensure_numba_cache, set_thread_environment

set_thread_environment()
ensure_numba_cache()
