"""Reconstruction without a learnt prior: CG-SENSE, sparsity, GRAPPA, SAKE, LINDBERG."""
