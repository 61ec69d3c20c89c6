"""What a step is when a pipeline runs it: artifacts in place of paths, digests, a TrainJob, one execution in MLflow."""
