"""What running a server takes besides answering: metrics, traces, access log, signals."""
