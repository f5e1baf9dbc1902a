"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import nn

from nestling.arguments.paths import home_path
from nestling.errors import StorageError
from nestling.process.interrupts import held_interrupts
from nestling.process.progress import Progress
from nestling.training.batches import Batches
from nestling.training.checkpoint import Checkpoint, Checkpoints
from nestling.training.config import TrainConfig
from nestling.training.learner import Learner, Objective, StepReport
from nestling.training.log import LogFiles, LogRow, Means, TrainLog
from nestling.training.processes import launched
from nestling.training.seeding import kept_random_state

Evaluate = Callable[[int], Mapping[str, float]]


def fit(
    model: nn.Module,
    objective: Objective,
    data: Any,
    config: TrainConfig = TrainConfig(),
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    folder: str | Path | None = None,
    evaluate: Evaluate | None = None,
) -> TrainLog:
    """Train ``model`` to minimise ``objective`` on ``data``.

    Runs on the CPU, one GPU, or the processes of ``torchrun`` and ``accelerate launch``. An interrupted
    run resumes from the newest checkpoint in ``folder`` when called again with the same arguments. On a
    CPU its weights are then bit-identical to those of an uninterrupted run.

    Args:
        model: trained in place; left on the device it was trained on.
        objective: ``objective(model, batch)`` returns a scalar loss, the mean over the rows of the batch, or
            :class:`nestling.losses.nested.Parts`, whose losses are logged. With several processes ``model``
            is wrapped, and the batch is the share of this process. If the objective is a module, its
            parameters are trained and saved too.

            A generator function may yield several of them, such as one per granularity. Their sum is
            minimised, but each is back-propagated before the next is computed, so that one graph is in
            memory at a time, and a context manager that is open at a ``yield`` stays open during that
            backward pass. ``model`` is then never wrapped: its methods can be called with several
            processes too, which average the gradients after the last loss.
            :class:`nestling.losses.one_encoding.OneEncoding` encodes a batch once for all of them.
        data: see :class:`nestling.training.batches.Batches`.
        config: see :class:`TrainConfig`.
        collate: makes a batch of items, if ``data`` is a data set of items.
        folder: for checkpoints, ``log.csv`` and, if TensorBoard is installed, its event files.
        evaluate: ``evaluate(step)`` is called on every process, with model and objective in evaluation
            mode. Its values are logged by name; a name like ``ndcg@10@dim=8`` is logged at that granularity.

    Raises:
        ConfigError: for settings that do not work together, the folder of another run, or an objective that
            gives no loss.
        DataError: for data without rows, or columns of different lengths.
        NonFiniteError: if a loss or gradient is NaN or infinite; the message has step and granularity.
        ArtifactError: if the newest checkpoint is damaged.
        StorageError: if a file cannot be written; earlier checkpoints stay.
        WorkerError: if a process that prepares batches is killed.
        KeyboardInterrupt: on Ctrl-C, after writing a checkpoint (one process); says how to resume.

    >>> import torch
    >>> rows = torch.eye(4)
    >>> mean_square = lambda model, batch: (model(batch) - batch).square().mean()
    >>> log = fit(nn.Linear(4, 4), mean_square, rows, TrainConfig(max_steps=3, batch_size=2))
    >>> [step for step, _ in log.series("loss")]
    [3]
    """
    with launched() as accelerator, kept_random_state(accelerator.device):
        batches = Batches(
            data,
            config,
            collate=collate,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        learner = Learner(model, objective, config, accelerator)
        try:
            return _Run(learner, batches, None if folder is None else home_path(folder), evaluate).go()
        finally:
            learner.release()


class _Run:
    """A run in progress: its steps, and the log, evaluations and checkpoints between them."""

    def __init__(
        self, learner: Learner, batches: Batches, folder: Path | None, evaluate: Evaluate | None
    ) -> None:
        self.learner, self.batches, self.evaluate = learner, batches, evaluate
        self.config, self.accelerator = learner.config, learner.accelerator
        self.steps = self.config.max_steps or self.config.epochs * batches.steps_per_epoch
        self.step = self.evaluated = self.saved = 0
        self.whole = True  # False while a step is changing things
        self.means, self.log = Means(), TrainLog()
        self.checkpoints: Checkpoints | None = None
        self.files: LogFiles | None = None
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        """Resume from the newest checkpoint of ``folder``, if there is one."""
        run = {
            **self.config.decisive(),
            "rows of data": self.batches.rows,
            "processes": self.accelerator.num_processes,
        }
        self.checkpoints = Checkpoints(folder / "checkpoints", run)
        found = self.checkpoints.read_newest()
        if found is not None:
            self.step = self.saved = found.step
            self.log, self.log.resumed_from = found.log, found.step
            self.evaluated = found.state["evaluated"]
            self.means = Means(found.state["means"])
            self.learner.load_state(found.state["learner"])
        if self.accelerator.is_main_process:
            try:
                self.checkpoints.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"{folder} cannot be used: {error.strerror}") from error
            self.checkpoints.clear_remains()
            self.files = LogFiles(folder, self.log)

    def go(self) -> TrainLog:
        """Run to the end."""
        self.learner.train()
        try:
            with Progress("training", self.steps, "steps", done=self.step) as bar:
                self._steps(bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._interrupted()) from None
        finally:
            if self.files is not None:
                self.files.close()
        return self.log

    def _steps(self, bar: Progress) -> None:
        self._between_steps(bar)
        left = range(self.step, self.steps)
        numbers = (number for step in left for number in self.batches.of_step(step))
        with closing(self.batches.stream(numbers)) as stream:
            for step in left:
                batches = self._batches_of(step, stream)
                with held_interrupts():
                    self.whole = False
                    rate = self.config.learning_rate(self.step, self.steps)
                    report = self.learner.step(self.step + 1, batches, rate)
                    self._note(report, rate)
                    self.step += 1
                    self.whole = True
                bar.update()
                self._between_steps(bar)

    def _batches_of(self, step: int, stream: Iterator[Any]) -> list[tuple[Any, float]]:
        """The next batches, with their share of the rows of their step."""
        sizes = [self.batches.size(number) for number in self.batches.of_step(step)]
        return [(next(stream), size / sum(sizes)) for size in sizes]

    def _note(self, report: StepReport, rate: float) -> None:
        self.means.add({"lr": rate, "gradient_norm": report.gradient_norm})
        self.means.add({f"loss@{name}".rstrip("@"): value for name, value in report.losses.items()})

    def _between_steps(self, bar: Progress) -> None:
        """Log, evaluate and save, if due after ``self.step`` steps and not done yet."""
        if self._due(self.config.log_every):
            self._log_means(bar)
        if self.evaluate is not None and self._due(self.config.evaluate_every) and self.evaluated < self.step:
            self._log(self._evaluation(self.evaluate))
            self.evaluated = self.step
        every = self.config.checkpoint_every or self.batches.steps_per_epoch
        if self._due(every) and self.saved < self.step:
            self._save()

    def _due(self, every: int | None) -> bool:
        return self.step == self.steps or bool(every and self.step % every == 0)

    def _log_means(self, bar: Progress) -> None:
        means = self.means.take()
        if means:
            losses = {name.removeprefix("loss@"): mean for name, mean in means.items() if "loss" in name}
            bar.note(" ".join(f"{name} {mean:.4g}" for name, mean in losses.items()))
            self._log(means)

    def _log(self, values: Mapping[str, float]) -> None:
        rows = [LogRow(self.step, *_split(name), float(value)) for name, value in values.items()]
        self.log.rows.extend(rows)
        if self.files is not None:
            self.files.append(rows)

    def _evaluation(self, evaluate: Evaluate) -> Mapping[str, float]:
        self.learner.train(False)
        try:
            return evaluate(self.step)
        finally:
            self.learner.train()

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        learner = self.learner.state()
        if self.accelerator.is_main_process:
            state = {"learner": learner, "evaluated": self.evaluated, "means": self.means.state}
            self.checkpoints.write(Checkpoint(self.step, state, self.log))
        self.accelerator.wait_for_everyone()
        self.saved = self.step

    def _interrupted(self) -> str:
        """Save a checkpoint if possible; returns how to resume."""
        # Several processes may be at different steps, and a checkpoint belongs to one step.
        if self.whole and self.saved < self.step and self.accelerator.num_processes == 1:
            self._save()
        if self.checkpoints is None:
            advice = "Nothing was saved; give folder= to be able to resume"
        elif not self.saved:
            advice = "No checkpoint was written yet; run it again to start over"
        else:
            folder = self.checkpoints.folder.parent
            advice = f"Step {self.saved} is kept in {folder}; run it again to resume from there"
        return f"training stopped after step {self.step} of {self.steps}. {advice}"


def _split(name: str) -> tuple[str, str]:
    """``ndcg@10@dim=8`` -> metric ``ndcg@10`` at granularity ``dim=8``."""
    metric, _, at = name.rpartition("@")
    return (metric, at) if "=" in at else (name, "")
