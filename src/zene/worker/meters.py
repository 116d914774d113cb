"""What a worker counts of itself. The agent knows nothing of it: what became of a call is read off committed events."""

import time
from collections.abc import Iterable

import msgspec

from zene import telemetry
from zene.domain.events import Event, StepFinished, StepRetry, StepStarted, TaskFinished
from zene.domain.messages import Usage
from zene.domain.tasks import Task
from zene.telemetry.metrics import Registry

_COUNTED = {body.type: body for body in (StepStarted, StepRetry, StepFinished, TaskFinished)}

log = telemetry.logger(__name__)


class Meters:
    """The worker's instruments."""

    def __init__(self, registry: Registry) -> None:
        self.slots = registry.gauge("zene_slots", "Tasks that this worker can work on at once.")
        self.running = registry.gauge("zene_tasks_running", "Tasks that this worker works on.")
        self._claims = registry.counter("zene_claims_total", "Tasks that this worker has taken.")
        self._waited = registry.histogram(
            "zene_task_wait_seconds", "From a task's submit to its first claim."
        )
        self.lost = registry.counter(
            "zene_leases_lost_total", "Leases on tasks that this worker lost while it worked."
        )
        self.append = registry.histogram(
            "zene_append_seconds", "Until a batch of a task's events is committed."
        )
        self.publish = registry.histogram(
            "zene_publish_seconds", "Until a committed batch of events is handed to the bus."
        )
        self.finished = registry.counter(
            "zene_tasks_finished_total", "Tasks that ended on this worker, by outcome.", "outcome"
        )
        self.errors = registry.counter(
            "zene_task_errors_total",
            "Errors that tasks ended with on this worker, by code.",
            "code",
        )
        self.calls = registry.counter(
            "zene_model_calls_total",
            "Model calls that ended, by model and by how: end, tool_calls, length, refusal, cancelled or error.",
            "model",
            "end",
        )
        self.retries = registry.counter(
            "zene_model_retries_total",
            "Model calls made again, by model and by the error before.",
            "model",
            "code",
        )
        self.call_seconds = registry.histogram(
            "zene_model_call_seconds", "A model call, its retries included, by model.", "model"
        )
        self.tokens = registry.counter(
            "zene_model_tokens_total",
            "Tokens of model calls as charged, by model and kind: input (whole), cached_input, output.",
            "model",
            "kind",
        )

    def claimed(self, task: Task) -> None:
        """This worker took a task."""
        self._claims.count()
        if task.attempt == 1 and not task.steps and task.started_at is not None:
            self._waited.observe(max(task.started_at - task.created_at, 0) / 1000)


class TaskMeters:
    """What one run of a task adds."""

    def __init__(self, meters: Meters, task: Task) -> None:
        self._meters = meters
        self._task_id = task.id
        self._model = task.model
        self._called_at = time.monotonic()

    def recorded(self, events: Iterable[Event]) -> None:
        """These were committed."""
        for event in events:
            if (body := _COUNTED.get(event.type)) is None:
                continue
            match msgspec.json.decode(event.data, type=body):
                case StepStarted(model=model):
                    self._model, self._called_at = model, time.monotonic()
                case StepRetry(reason=code):
                    self._meters.retries.count(self._model, code)
                case StepFinished(stop_reason=end, usage=usage):
                    self._called(end, usage)
                case TaskFinished(outcome=outcome, error=error):
                    self._meters.finished.count(outcome)
                    if error is not None:
                        self._meters.errors.count(error.code)
                case _:
                    pass

    def _called(self, end: str, usage: Usage) -> None:
        meters, model, seconds = self._meters, self._model, time.monotonic() - self._called_at
        meters.calls.count(model, end)
        meters.call_seconds.observe(seconds, model)
        meters.tokens.count(model, "input", by=usage.input_tokens)
        meters.tokens.count(model, "cached_input", by=usage.cached_tokens)
        meters.tokens.count(model, "output", by=usage.output_tokens)
        log.info(
            "model.called",
            task=self._task_id,
            model=model,
            end=end,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            ms=round(seconds * 1000),
        )
