"""A bounded queue of jobs, their progress, and their results for a while."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

from stresnet.data.prepared_video import PreparedVideo
from stresnet.serving.decoding import CANCELLED, Decoders, Interruption
from stresnet.serving.metrics import Metrics
from stresnet.serving.problems import ProblemError, problem_of
from stresnet.serving.recognition import Answer, Models, Question, prepare, recognise
from stresnet.serving.settings import Settings
from stresnet.serving.uploads import Upload

State = Literal["queued", "running", "done", "failed", "cancelled"]
_FIRST_GUESS_SEC = 2.0
_MOST_SEC = 60
_OLD_WEIGHT = 0.8


class Job:
    """A question about an uploaded video, and in the end its answer or a problem.

    Attributes:
        id: a name that cannot be guessed.
        name: what the client calls the video, safe to show.
        file: the upload.
        state: how far it is.
        progress: what is being done, units done, and units in all.
        answer: if it is done.
        problem: if it failed or was cancelled.
        ended: set at the end.
    """

    def __init__(self, upload: Upload, question: Question, seconds: float) -> None:
        """Describe a job that may take some seconds."""
        self.id = secrets.token_urlsafe(16)
        self.question = question
        self.name, self.file = upload.name, upload.file
        self.interruption = Interruption(seconds)
        self.state: State = "queued"
        self.progress: tuple[str, int, int] = ("waiting", 0, 0)
        self.answer: Answer | None = None
        self.problem: ProblemError | None = None
        self.future: Future[Any] | None = None
        self.ended = asyncio.Event()
        self.ended_at = math.inf

    def cancel(self) -> None:
        """End the job: at once if it waits, else at its next step."""
        self.interruption.cancel()
        if self.future:
            self.future.cancel()

    def report(self, activity: str, done: int, total: int, detail: str = "") -> None:
        """Show progress, see `stresnet.progress.Progress`; called from other threads."""
        self.state = "running"
        self.progress = (activity, done, total)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        activity, done, total = self.progress
        values: dict[str, Any] = {"id": self.id, "state": self.state}
        if self.answer:
            return values | {"result": self.answer.values}
        if self.problem:
            return values | {"problem": self.problem.to_dict()}
        return values | {"progress": {"activity": activity, "done": done, "total": total}}


class Jobs:
    """Runs jobs: several are decoded at the same time, one is scored at a time, by all cores."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        """Start with no jobs."""
        self._models, self._settings, self._metrics = models, settings, metrics
        self._decoders = Decoders()
        self._decoding = ThreadPoolExecutor(settings.workers, "decoding")
        self._scoring = ThreadPoolExecutor(1, "scoring")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._admitted = 0
        self._job_sec = _FIRST_GUESS_SEC
        self.closing = False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Keep a place for a job that is being uploaded.

        Raises:
            ProblemError: there is none.
        """
        if self.closing:
            raise ProblemError(
                "busy", "the server is about to end; try again", status=503, headers={"Retry-After": "5"}
            )
        if self._admitted >= self._settings.workers + self._settings.waiting:
            seconds = min(_MOST_SEC, max(1, round(self._job_sec / 2)))  # then half of them should have ended
            raise ProblemError(
                "busy",
                f"{self._admitted} videos are waiting already; try again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def submit(self, upload: Upload, question: Question) -> Job:
        """Begin a job, which closes the upload at its end."""
        self._forget()
        job = Job(upload, question, self._settings.max_seconds)
        self._jobs[job.id] = job
        self._count(1)
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            ProblemError: there is none of this id, or no more.
        """
        self._forget()
        if job_id not in self._jobs:
            raise ProblemError("not-found", "no such job; results are kept for a while only")
        return self._jobs[job_id]

    async def close(self) -> None:
        """Finish all jobs."""
        self.closing = True
        await asyncio.gather(*self._tasks)
        self._decoding.shutdown()
        self._scoring.shutdown()

    async def _run(self, job: Job) -> None:
        began = time.monotonic()
        try:
            job.future = self._decoding.submit(self._prepare, job)
            video = await asyncio.wrap_future(job.future)
            job.future = self._scoring.submit(self._recognise, job, video)
            job.answer = await asyncio.wrap_future(job.future)
            job.state = "done"
        except (Exception, asyncio.CancelledError) as error:
            job.problem = CANCELLED if isinstance(error, asyncio.CancelledError) else problem_of(error)
            job.state = "cancelled" if job.problem.kind == "cancelled" else "failed"
            self._metrics.problems.labels(job.problem.kind).inc()
        finally:
            job.file.close()
            self._count(-1)
        self._job_sec = _OLD_WEIGHT * self._job_sec + (1 - _OLD_WEIGHT) * (time.monotonic() - began)
        self._metrics.jobs.labels(job.state).inc()
        job.ended_at = time.monotonic()
        job.ended.set()

    def _prepare(self, job: Job) -> PreparedVideo:
        with self._metrics.decode_seconds.time():
            job.interruption.check()
            job.report("decoding", 0, 0)
            return prepare(
                self._models,
                self._decoders,
                self._settings,
                job.file,
                job.name,
                job.question,
                job.report,
                job.interruption,
            )

    def _recognise(self, job: Job, video: PreparedVideo) -> Answer:
        with self._metrics.score_seconds.time():
            return recognise(self._models, video, job.name, job.question, job.report, job.interruption)

    def _count(self, change: int) -> None:
        self._admitted += change
        self._metrics.waiting.set(self._admitted)

    def _forget(self) -> None:
        """Drop finished jobs that are old, or more than are kept."""
        now = time.monotonic()
        finished = [job for job in self._jobs.values() if job.ended.is_set()]
        beyond = len(finished) - self._settings.kept_jobs
        for number, job in enumerate(finished):
            if number < beyond or now - job.ended_at > self._settings.kept_seconds:
                del self._jobs[job.id]
