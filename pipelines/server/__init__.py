"""The streaming server behind `genrecon serve`.

In the server's own process: `listener` accepts connections, `connection` serves one client (`intake`, `request`,
`read_ahead`, `replies`), `scan_queue` decides which scan runs next, `worker_slot` supervises a scan process and
enforces `memory_limit`, `delivery` sends DICOM files from the spool, `status` and `metrics` answer HTTP.

In processes forked by `fork_server`: `scan_process` runs one scan after another (`scan_run`), with the chain that its
client asked for (`requested_chain`), and refuses scans whose `memory_estimate` is too large.
"""
