"""The serial executor: one task after another in this process. The twin of the Dask executor, for looking into."""

from collections.abc import Iterator

from pipeline.execute.task import Failed, Outcome, run_task
from pipeline.planning import Plan


def run(plan: Plan) -> Iterator[Outcome]:
    """Run every task of a plan; a task that fails is reported and the rest goes on."""
    for number, image in enumerate(plan.images):
        for block in range(len(image.grid)):
            try:
                yield run_task(image, number, block)
            except Exception as error:  # noqa: BLE001 - whatever a task raises, the others go on
                yield Failed(number, block, explain(error))


def explain(error: BaseException) -> str:
    """Return an error in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
