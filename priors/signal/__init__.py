"""Signal processing of k-space and images: Fourier, Hankel and wavelet transforms, ESPIRiT, noise, weighting."""
