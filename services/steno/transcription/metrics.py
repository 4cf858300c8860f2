"""What models and remote servers are measured by; the worker has the metrics of tasks."""

from prometheus_client import Counter, Gauge, Histogram

MODEL_SECONDS = Counter("steno_model_seconds", "Time that the model worked.", ["caller"])
BUSY = Gauge("steno_model_busy", "1 while the model works, else 0.")
WAITING = Gauge("steno_model_waiting", "Windows that wait for the model.")
BATCH_SIZE = Histogram(
    "steno_batch_windows",
    "Windows that were decoded in one batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
REMOTE_REQUESTS = Counter(
    "steno_remote_requests",
    "Requests to the server of a remote engine, by how they ended.",
    ["how"],
)
REMOTE_SECONDS = Histogram(
    "steno_remote_request_seconds",
    "Time until the server of a remote engine has answered with a transcript.",
    buckets=(0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300),
)
