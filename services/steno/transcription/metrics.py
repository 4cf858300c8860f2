"""What models are measured by; the worker has the metrics of tasks."""

from prometheus_client import Counter, Gauge, Histogram

MODEL_SECONDS = Counter("steno_model_seconds", "Time that the model worked.", ["caller"])
BUSY = Gauge("steno_model_busy", "1 while the model works, else 0.")
WAITING = Gauge("steno_model_waiting", "Windows that wait for the model.")
BATCH_SIZE = Histogram(
    "steno_batch_windows",
    "Windows that were decoded in one batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
