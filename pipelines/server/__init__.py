"""The server: listener, intake of scans, a process for each scan, status page, memory limits."""
