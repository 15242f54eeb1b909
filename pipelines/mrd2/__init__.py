"""MRD 2 streams: read within limits, whatever version 2 wrote them; headers, lines and images converted."""
