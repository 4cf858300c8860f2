"""What every process needs: gRPC, errors, settings, Postgres, NATS, S3, telemetry.

Nothing here knows a service. One file is one concern:

    process.py     how a process starts and stops
    settings.py    its environment
    server.py      gRPC server with health and reflection; interceptors.py what wraps each call
    client.py      gRPC channels to other services
    errors.py      errors that any service may raise, and how an error becomes a gRPC status
    validation.py  the rules that stand in proto/
    database.py    Postgres; migrate.py its schemas
    loops.py       work that is done again and again beside the calls; ending.py how it ends
    leases.py      leases that are renewed while work goes on
    paging.py      page tokens
    wellknown.py   Python's times and lengths as protobuf's
    messaging.py   NATS JetStream
    objects.py     S3; removals.py what must go from it
    telemetry.py   logs, metrics, traces
    tls.py         certificates of servers, and whom channels believe
"""
