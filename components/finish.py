"""Component finish: the exit handler."""

from kfp.dsl import PipelineTaskFinalStatus

from components import component


@component
def finish(status: PipelineTaskFinalStatus) -> None:
    """Close the execution's MLflow run, FAILED with the failing step's message if one failed, and report.

    Args:
        status: how the pipeline ended.
    """
    from segraft.orchestration.execution import close

    print(close(succeeded=status.state == "SUCCEEDED"))
