"""helm test: a run is recorded in MLflow, and its artifact comes back from the object store."""

import uuid

import mlflow

client = mlflow.MlflowClient()
found = client.get_experiment_by_name("lakeloop-platform-test")
experiment = found.experiment_id if found else client.create_experiment("lakeloop-platform-test")
run = client.create_run(experiment)
word = uuid.uuid4().hex
client.log_text(run.info.run_id, word, "word.txt")
assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/word.txt") == word  # noqa: S101
client.set_terminated(run.info.run_id)
client.delete_run(run.info.run_id)
print(f"MLflow kept run {run.info.run_id} and its artifact under {run.info.artifact_uri}")
