"""Where the tasks of a benchmark run: in this process, in processes of this machine, or on a dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from gadgets.stream import ReconError, one_line
from pipelines.evaluation.cases import Array, Case
from pipelines.evaluation.distribute import dask_client
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.task import failed_row, run_task

ATTEMPTS = 3  # pools of processes that die without any result, before tasks are run one by one


@dataclass(frozen=True)
class Task:
    """A case for an entry; the key names its files."""

    case: Case
    entry: Entry
    key: str


Finished = Generator[tuple[Task, dict[str, Any], dict[str, Array]], None, None]


def on_this_machine(tasks: Sequence[Task], repeats: int, threads: int, workers: int) -> Finished:
    """Run tasks in processes of this machine or, with one worker, in this process; yield each as it is finished.

    The tasks of a process that died are run again; after `ATTEMPTS` pools without any result they are run one by one,
    and the one whose process dies then has failed.
    """
    if workers <= 1:
        before = torch.get_num_threads()
        try:
            for task in tasks:
                yield task, *run_task(task.case, task.entry, repeats, threads)
        finally:
            torch.set_num_threads(before)
        return
    waiting, idle = list(tasks), 0  # idle: pools without any result
    while waiting:
        alone = idle >= ATTEMPTS
        batch = waiting[:1] if alone else waiting
        failed: list[Task] = []
        yield from _one_pool(batch, repeats, threads, 1 if alone else workers, failed)
        if alone and failed:
            text = f"its process was killed, {ATTEMPTS} times and more; it may need more memory than there is"
            yield failed[0], failed_row(failed[0].case, failed[0].entry, text), {}
            failed = []
        idle = idle + 1 if len(failed) == len(batch) else idle if alone else 0
        waiting = failed + waiting[len(batch) :]


def _one_pool(batch: list[Task], repeats: int, threads: int, workers: int, failed: list[Task]) -> Finished:
    """Run tasks in one pool of processes; those that were lost with a process that died are added to `failed`."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    running: dict[Future[Any], Task] = {}
    try:
        for task in batch:
            try:
                running[pool.submit(run_task, task.case, task.entry, repeats, threads)] = task
            except BrokenProcessPool:
                failed.append(task)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task, *future.result()
                except BrokenProcessPool:
                    failed.append(task)
    except BaseException:  # interrupted: queued tasks are dropped
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def on_dask(address: str, tasks: Sequence[Task], repeats: int, threads: int) -> Finished:
    """Run tasks on the workers of a dask scheduler; one whose worker dies goes to another worker."""
    client = dask_client(address)
    try:
        from distributed import as_completed

        # Submitted, not scattered: scattered data are lost with their worker, submitted ones are made again.
        cases = {id(task.case): task.case for task in tasks}
        data = {number: client.submit(_same, case, key=f"genrecon-{case.name}") for number, case in cases.items()}
        futures = {
            client.submit(run_task, data[id(t.case)], t.entry, repeats, threads, key=f"genrecon-{t.key}", pure=False): t
            for t in tasks
        }
        for future in as_completed(futures):
            task = futures[future]
            try:
                result = future.result()
            except Exception as error:
                raise ReconError(
                    f"dask {address}: {task.case.name}, {task.entry.label}: {one_line(error)}; see the workers' logs"
                ) from None
            yield task, *result
    finally:
        client.close()


def _same(case: Case) -> Case:
    return case
