"""What the API server refuses, and what it says. One row per rule."""

import copy
from typing import Any

import pytest
from kubectl import Kubectl, Refused

from builders import DEPLOYMENT_SPEC, TRAINING_SPEC

INPUT = {"name": "a", "uri": "s3a://lake/a"}
INGEST = {"from": "s3a://raw/a/*.json", "format": "json"}
SEARCH = {"name": "1.C", "min": 1, "max": 2}
SCRIPT = {"uri": "s3a://code/a.zip", "path": "a.py"}
METRIC = {"name": "error-rate", "max": 0.01}


def job(**parts: Any) -> dict[str, Any]:
    return obj("TrainingJob", dict(TRAINING_SPEC), parts)


def deployment(**parts: Any) -> dict[str, Any]:
    return obj("ModelDeployment", dict(DEPLOYMENT_SPEC), parts)


def obj(kind: str, spec: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    merged = {k: v for k, v in {**copy.deepcopy(spec), **parts}.items() if v is not None and k != "metadata_name"}
    name = parts.get("metadata_name", "bad")
    return {"apiVersion": "lakeloop.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": merged}


def ingest(**parts: Any) -> dict[str, Any]:
    return job(inputs=[INPUT | {"ingest": INGEST | parts}])


def split(**parts: Any) -> dict[str, Any]:
    return job(dataset={"target": "t", "split": parts})


def search(**parts: Any) -> dict[str, Any]:
    return job(search={"parameters": [{k: v for k, v in (SEARCH | parts).items() if v is not None}]})


def conf(key: str) -> dict[str, Any]:
    return job(spark={"conf": {key: "x"}})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # names
    "name too long": (job(metadata_name="a" * 41), "a metadata.name of at most 40 characters"),
    "name starts with a digit": (job(metadata_name="1st"), "a metadata.name that starts with a letter"),
    "name with a dot": (deployment(metadata_name="a.b"), "a metadata.name that starts with a letter"),
    # shape
    "unknown field": (job(inputz=[]), 'unknown field "spec.inputz"'),
    "wrong type": (job(suspend="yes"), "spec.suspend: Invalid value"),
    "no inputs": (job(inputs=[]), "spec.inputs in body should have at least 1 items"),
    "too many inputs": (job(inputs=[INPUT | {"name": f"a{i}"} for i in range(17)]), "must have at most 16 items"),
    "two inputs of one name": (job(inputs=[INPUT, INPUT]), 'Duplicate value: {"name":"a"}'),
    "two views of one name": (
        job(inputs=[INPUT, INPUT | {"name": "A"}], dataset={"target": "t", "query": "q"}),
        "write names that differ otherwise",
    ),
    "unknown value": (ingest(format="xml"), 'supported values: "json", "csv", "parquet"'),
    "quantity that is none": (job(spark={"driver": {"memory": "much"}}), "spec.spark.driver.memory"),
    "negative memory": (job(spark={"driver": {"memory": "-1Gi"}}), "spec.spark.driver.memory"),
    "timestamp that is none": (job(inputs=[INPUT | {"timestamp": "yesterday"}]), "must be of type date-time"),
    "cron that is none": (job(triggers={"schedule": {"cron": "often"}}), "spec.triggers.schedule.cron"),
    # what to learn with
    "no method": (job(estimator=None), "write exactly one of estimator, script and project"),
    "estimator and script": (job(script=SCRIPT), "write exactly one of estimator, script and project"),
    "estimator and project": (
        job(project={"uri": "https://x/y"}),
        "write exactly one of estimator, script and project",
    ),
    "script from nowhere": (job(estimator=None, script={"path": "a.py"}), "exactly one of configMapRef and uri"),
    "script from both": (
        job(estimator=None, script=SCRIPT | {"configMapRef": {"name": "c"}}),
        "exactly one of configMapRef and uri",
    ),
    "script outside its folder": (
        job(estimator=None, script=SCRIPT | {"path": "../a.py"}),
        "write a path inside the script's folder",
    ),
    "absolute script": (
        job(estimator=None, script=SCRIPT | {"path": "/a.py"}),
        "write a path inside the script's folder",
    ),
    "env with two sources": (
        job(estimator=None, script=SCRIPT | {"env": [{"name": "A", "value": "b", "valueFrom": {}}]}),
        "write either value or valueFrom",
    ),
    "env from nowhere": (
        job(estimator=None, script=SCRIPT | {"env": [{"name": "A", "valueFrom": {}}]}),
        "exactly one of secretKeyRef, configMapKeyRef and fieldRef",
    ),
    "secret as a variable's value": (
        deployment(server={"env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}),
        "put it into a Secret and name that in valueFrom.secretKeyRef",
    ),
    "class without a module": (job(estimator={"steps": [{"class": "Ridge"}]}), "spec.estimator.steps[0].class"),
    # inputs
    "uri and table": (job(inputs=[INPUT | {"table": "a.b"}]), "write exactly one of uri (s3a://bucket/path) and table"),
    "neither uri nor table": (job(inputs=[{"name": "a"}]), "write exactly one of uri (s3a://bucket/path) and table"),
    "uri of another scheme": (job(inputs=[INPUT | {"uri": "s3://lake/a"}]), "should match '^s3a://"),
    "negative version": (
        job(inputs=[INPUT | {"version": -1}]),
        "spec.inputs[0].version in body should be greater than or equal to 0",
    ),
    "version and timestamp": (
        job(inputs=[INPUT | {"version": 1, "timestamp": "2026-11-24T00:00:00Z"}]),
        "write version or timestamp, not both",
    ),
    "ingest into a version": (
        job(inputs=[INPUT | {"version": 1, "ingest": INGEST}]),
        "take version and timestamp away, or ingest",
    ),
    "ingest into a timestamp": (
        job(inputs=[INPUT | {"timestamp": "2026-11-24T00:00:00Z", "ingest": INGEST}]),
        "take version and timestamp away, or ingest",
    ),
    "merge without keys": (ingest(mode="Merge"), "mode Merge needs keys"),
    "merge with empty keys": (ingest(mode="Merge", keys=[]), "mode Merge needs keys"),
    "keys without merge": (ingest(keys=["a"]), "mode Merge needs keys"),
    "endpoint with a password": (
        job(storage={"endpoint": "http://me:hunter2@minio:9000"}),
        "spec.storage.endpoint in body should match",
    ),
    "endpoint with a port that is none": (
        deployment(storage={"endpoint": "http://minio:99999"}),
        "a port from 1 to 65535",
    ),
    # dataset
    "feature that is the target": (
        job(dataset={"features": ["a", "churned"], "target": "churned"}),
        "the target cannot be a feature",
    ),
    "no features": (job(dataset={"features": [], "target": "t"}), "should have at least 1 items"),
    "estimator without a target": (job(dataset={}), "an estimator needs dataset.target"),
    "two inputs without a query": (job(inputs=[INPUT, INPUT | {"name": "b"}]), "needs dataset.query"),
    "expectations of a script's two inputs without a query": (
        job(
            estimator=None,
            script={"configMapRef": {"name": "code"}, "path": "train.py"},
            inputs=[INPUT, INPUT | {"name": "b"}],
            dataset={"expectations": [{"name": "known", "expression": "a IS NOT NULL"}]},
        ),
        "dataset.expectations need dataset.query",
    ),
    "time split without a column": (split(by="Time"), "by: Time needs column"),
    "random split with a column": (split(column="day"), "by: Time needs column"),
    "time split with a seed": (split(by="Time", column="day", seed=1), "keys and seed belong to by: Random"),
    "nothing left to train on": (split(testFraction=1), "should be less than 1"),
    # search, evaluation
    "search over half a range": (search(min=None), "must validate one and only one schema (oneOf)"),
    "search over a range and values": (search(values=[1]), "must validate one and only one schema (oneOf)"),
    "range upside down": (search(min=3), "min must not be above max"),
    "a grid over floats": (
        job(search={"algorithm": "Grid", "parameters": [SEARCH]}),
        "a Grid has an end: write values, or a range of type Int",
    ),
    "a search in a script": (
        job(estimator=None, script=SCRIPT, search={"parameters": [SEARCH]}),
        "a search sets parameters of an estimator's steps",
    ),
    "logarithm of zero": (search(min=0, scale="Log"), "scale Log needs a min above 0"),
    "scale of values": (search(min=None, max=None, values=[1], scale="Log"), "scale and type belong to a range"),
    "threshold without bounds": (job(evaluation={"thresholds": [{"metric": "f1"}]}), "write min, max or both"),
    "threshold upside down": (
        job(evaluation={"thresholds": [{"metric": "f1", "min": 1, "max": 0}]}),
        "min must not be above max",
    ),
    "two thresholds of one metric": (
        job(evaluation={"thresholds": [{"metric": "f1", "min": 0}, {"metric": "f1", "max": 1}]}),
        "Duplicate value",
    ),
    "champion of no model": (job(evaluation={"champion": {}}, register=None), "write register too"),
    "evaluation without test rows": (
        job(evaluation={"champion": {}}, dataset={"target": "t", "split": {"testFraction": 0}}),
        "evaluation needs test rows",
    ),
    # registry
    "alias that MLflow keeps": (job(register={"model": "m", "alias": "latest"}), "write another alias"),
    "alias like a version": (deployment(model={"name": "m", "alias": "V2"}), "write another alias"),
    "tag of ours": (job(register={"model": "m", "tags": {"lakeloop.io/run": "1"}}), "write another name"),
    "tag of ours on the run": (job(tracking={"tags": {"lakeloop.io/run-uid": "1"}}), "write another name"),
    "model name with a slash": (job(register={"model": "a/b"}), "spec.register.model"),
    # spark
    "secret in a Spark setting": (conf("spark.hadoop.fs.s3a.secret.key"), "no credential in a Spark setting"),
    "access key in a Spark setting": (conf("spark.hadoop.fs.s3a.access.key"), "no credential in a Spark setting"),
    "password in a Spark setting": (conf("spark.ssl.keyPassword"), "no credential in a Spark setting"),
    "account key in a Spark setting": (
        conf("spark.hadoop.fs.azure.account.key.lake"),
        "no credential in a Spark setting",
    ),
    "variable of the driver in a Spark setting": (
        conf("spark.kubernetes.driverEnv.A"),
        "the operator decides where the pods run",
    ),
    "overhead of the driver in a Spark setting": (conf("spark.driver.memoryOverhead"), "the operator decides"),
    "endpoint in a Spark setting": (conf("spark.hadoop.fs.s3a.endpoint"), "write those in spec.storage"),
    "driver of one byte": (job(spark={"driver": {"memory": 1}}), "a driver needs a memory of at least 480Mi"),
    "driver that Spark would not start in": (
        job(spark={"driver": {"memory": "450Mi"}}),
        "a driver needs a memory of at least 480Mi: write 512Mi or more",
    ),
    "driver without its unit": (job(spark={"driver": {"memory": "512"}}), "a driver needs a memory of at least 480Mi"),
    "executor too small": (job(spark={"executor": {"memory": "400Mi"}}), "an executor needs a memory of at least"),
    "master in a Spark setting": (conf("spark.master"), "the operator decides where the pods run"),
    "volume in a Spark setting": (
        conf("spark.kubernetes.executor.volumes.hostPath.a.mount.path"),
        "the operator decides where the pods run",
    ),
    "allocation upside down": (
        job(spark={"dynamicAllocation": {"minExecutors": 3, "maxExecutors": 2}}),
        "minExecutors must not be above maxExecutors",
    ),
    # triggers, policy
    "trigger on no input": (job(triggers={"delta": {"input": "b"}}), "must be the name of one of spec.inputs"),
    "trigger on a pinned input": (
        job(inputs=[INPUT | {"version": 1}], triggers={"delta": {"input": "a"}}),
        "take version and timestamp off that input",
    ),
    "backoff upside down": (
        job(runPolicy={"backoff": {"initialSeconds": 10, "maxSeconds": 5}}),
        "initialSeconds must not be above maxSeconds",
    ),
    "no deadline": (job(runPolicy={"activeDeadlineSeconds": 0}), "should be greater than or equal to 1"),
    # deployments
    "alias and version": (deployment(model={"name": "m", "alias": "a", "version": 1}), "write exactly one of alias"),
    "neither alias nor version": (deployment(model={"name": "m"}), "write exactly one of alias"),
    "version zero": (deployment(model={"name": "m", "version": 0}), "should be greater than or equal to 1"),
    "negative replicas": (deployment(replicas=-1), "should be greater than or equal to 0"),
    "autoscaling upside down": (
        deployment(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "minReplicas must not be above maxReplicas",
    ),
    "canary without its type": (
        deployment(strategy={"canary": {"steps": [{"setWeight": 1}]}}),
        "canary belongs to type: Canary alone",
    ),
    "canary of another type": (
        deployment(strategy={"type": "BlueGreen", "canary": {"steps": [{"setWeight": 1}]}}),
        "canary belongs to type: Canary alone",
    ),
    "canary without steps": (deployment(strategy={"type": "Canary"}), "type Canary needs canary.steps"),
    "step that does two things": (
        deployment(strategy={"type": "Canary", "canary": {"steps": [{"setWeight": 1, "pauseSeconds": 1}]}}),
        "exactly one of setWeight, pauseSeconds and pause",
    ),
    "step that does nothing": (
        deployment(strategy={"type": "Canary", "canary": {"steps": [{}]}}),
        "exactly one of setWeight, pauseSeconds and pause",
    ),
    "weight above 100": (
        deployment(strategy={"type": "Canary", "canary": {"steps": [{"setWeight": 101}]}}),
        "should be less than or equal to 100",
    ),
    "preview of a rolling update": (deployment(strategy={"preview": {"header": "x"}}), "preview needs type"),
    "replay of nothing": (deployment(gates={"replay": {}}), "source Table (the default) needs input"),
    "captured replay of a table": (
        deployment(capture={"uri": "s3a://a-b/c"}, gates={"replay": {"source": "Captured", "input": {"table": "a.b"}}}),
        "source Captured takes none",
    ),
    "captured replay without capture": (deployment(gates={"replay": {"source": "Captured"}}), "needs capture"),
    "replay of two tables": (
        deployment(gates={"replay": {"input": {"table": "a.b", "uri": "s3a://lake/a"}}}),
        "write exactly one of uri (s3a://bucket/path) and table",
    ),
    "metric without bounds": (deployment(analysis={"metrics": [{"name": "error-rate"}]}), "write min, max or both"),
    "metric upside down": (deployment(analysis={"metrics": [METRIC | {"min": 1}]}), "min must not be above max"),
    "metric without a query": (
        deployment(analysis={"metrics": [METRIC | {"name": "sales"}]}),
        "every other metric needs one",
    ),
    "built-in metric with a query": (deployment(analysis={"metrics": [METRIC | {"query": "up"}]}), "take no query"),
    "shadow of nothing": (deployment(shadow={"model": {}}), "write exactly one of alias and version"),
    "shadow above 100": (deployment(shadow={"model": {"alias": "a"}, "percent": 101}), "less than or equal to 100"),
    "route without a slash": (deployment(route={"path": "models"}), "spec.route.path"),
    "sample above one": (deployment(capture={"uri": "s3a://lake/a", "sampleFraction": 2}), "less than or equal to 1"),
}


@pytest.mark.parametrize(("bad", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(admin: Kubectl, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        admin.create(bad)
    assert message in str(caught.value)
