"""What every process needs: gRPC, errors, settings, Postgres, NATS, S3, telemetry.

Nothing here knows a service. One file is one concern:

    process.py       how a process starts and stops
    settings.py      its environment
    server.py        gRPC server with health and reflection; interceptors.py what wraps each call
    admission.py     a server that is behind refuses calls, rather than answer all too late
    client.py        gRPC channels to other services
    tenancy.py       on whose account a call is made; access.py whose what it is about must be
    errors.py        errors that any service may raise, and how an error becomes a gRPC status
    validation.py    the rules that stand in proto/
    database.py      Postgres; migrate.py its schemas
    group_commit.py  calls of the same moment in one transaction
    shared.py        one look-up for all who ask for the same at the same time
    subscriber.py    events and state that one of many subscribers has not read yet
    loops.py         work that is done again and again beside the calls; ending.py how it ends
    leases.py        leases that are renewed while work goes on; outage.py none expires by an outage
    paging.py        page tokens
    wellknown.py     Python's times and lengths as protobuf's
    messaging.py     NATS JetStream
    objects.py       S3; removals.py what must go from it
    telemetry.py     logs, metrics, traces
    tls.py           certificates of servers, and whom channels believe
"""
