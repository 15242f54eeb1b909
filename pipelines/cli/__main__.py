"""`python -m pipelines.cli`, as torchrun and services without an installed script start it."""

from pipelines.cli import main

main()
