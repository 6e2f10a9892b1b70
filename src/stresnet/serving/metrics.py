"""What Prometheus reads of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 300)


class Metrics:
    """The measures of one service.

    Attributes:
        registry: all of them, and memory, descriptors and time of the serving process.
        requests: answers, by route, method and status.
        request_seconds: time to each answer, by route.
        upload_bytes: bytes of uploads.
        jobs: jobs that ended, by outcome: done, failed or cancelled.
        problems: answers that are problems, by kind.
        waiting: jobs that are admitted and have not ended.
        streams: live streams that are open.
        stream_frames: pictures of live streams.
        decode_seconds, score_seconds: time of the two parts of a job.
    """

    def __init__(self) -> None:
        """Start counting."""
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter("stresnet_requests", "Answers.", ("route", "method", "status"), registry=registry)
        self.request_seconds = Histogram(
            "stresnet_request_seconds", "Time to an answer.", ("route",), registry=registry, buckets=_SECONDS
        )
        self.upload_bytes = Counter("stresnet_upload_bytes", "Bytes of uploads.", registry=registry)
        self.jobs = Counter("stresnet_jobs", "Jobs that ended.", ("outcome",), registry=registry)
        self.problems = Counter("stresnet_problems", "Jobs that failed.", ("kind",), registry=registry)
        self.waiting = Gauge("stresnet_jobs_admitted", "Jobs that have not ended.", registry=registry)
        self.streams = Gauge("stresnet_streams", "Live streams that are open.", registry=registry)
        self.stream_frames = Counter("stresnet_stream_frames", "Pictures of live streams.", registry=registry)
        self.decode_seconds = Histogram(
            "stresnet_decode_seconds", "Decoding and flow of a video.", registry=registry, buckets=_SECONDS
        )
        self.score_seconds = Histogram(
            "stresnet_score_seconds", "The network's time for a video.", registry=registry, buckets=_SECONDS
        )
