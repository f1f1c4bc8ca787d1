"""Scripts, projects and packages: what the operator pins, checks and renders of them."""

import base64
import json
from typing import Any

import pytest
from unit.training.world import PLATFORM, World

from builders import NAMESPACE
from lakeloop.api.v1alpha1.defaults import EffectiveTrainingSpec, effective_training_spec
from lakeloop.api.v1alpha1.trainingjob import RunInput, TrainingJobSpec
from lakeloop.domain.plan import ObjectRef
from lakeloop.render.errors import InvalidConf, ScriptTooLarge
from lakeloop.render.training.driver import driver_pod
from lakeloop.render.training.names import RunIdentity
from lakeloop.render.training.packages import requirements
from lakeloop.render.training.run_config import run_document
from lakeloop.render.training.script import ScriptFiles, files_of, pinned_files, with_script
from lakeloop.render.training.storage import storage_target

SCRIPT: dict[str, Any] = {"configMapRef": {"name": "code"}, "path": "train.py"}
CODE = ObjectRef("v1", "ConfigMap", NAMESPACE, "code")
RUN = RunIdentity(NAMESPACE, "churn", "7d1c6f0e", 7, "run-uid", 1)


def code(world: World, **files: str) -> None:
    """`kubectl apply` of the ConfigMap with the script; `train_py` is the key `train.py`."""
    data = {name.replace("_", "."): text for name, text in files.items()}
    metadata = {"name": "code", "namespace": NAMESPACE}
    world.kubernetes.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def spec_of(**parts: Any) -> EffectiveTrainingSpec:
    inputs = [{"name": "a", "uri": "s3a://lake/a"}]
    return effective_training_spec(TrainingJobSpec.parse({"inputs": inputs, **parts}))


async def test_a_script_is_copied_and_its_digest_recorded_before_the_driver_starts() -> None:
    world = World()
    code(world, train_py="1", helpers_py="2")
    world.apply(estimator=None, script=SCRIPT)
    await world.settle()
    config = world.object("ConfigMap", "churn-1-run")["data"]
    assert (config["script.train.py"], config["script.helpers.py"]) == ("1", "2")
    assert json.loads(config["run.json"])["script"] == {"path": "train.py", "args": [], "uri": None}
    assert world.run["codeDigest"] == ScriptFiles({"train.py": "1", "helpers.py": "2"}, {}).digest()
    pod = world.drivers[0]["spec"]
    volume = next(each for each in pod["volumes"] if each["name"] == "script")
    assert volume["configMap"]["name"] == "churn-1-run"
    assert {"key": "script.train.py", "path": "train.py"} in volume["configMap"]["items"]
    assert {"name": "script", "mountPath": "/etc/lakeloop-script", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]


async def test_an_edit_starts_no_run_and_changes_no_attempt() -> None:
    world = World()
    code(world, train_py="1")
    await world.until_running(estimator=None, script=SCRIPT)
    digest = world.run["codeDigest"]
    code(world, train_py="2")
    await world.settle()
    world.ends(None, code=137, reason="Error")
    await world.settle()
    world.clock.tick(60)
    await world.settle()
    assert (world.run["number"], world.run["attempt"]) == (1, 2)
    assert world.object("ConfigMap", "churn-1-run")["data"]["script.train.py"] == "1"
    assert world.run["codeDigest"] == digest
    world.runs()
    world.ends(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    world.annotate("lakeloop.io/run-now", "again")
    await world.settle()
    assert world.object("ConfigMap", "churn-2-run")["data"]["script.train.py"] == "2"
    assert world.run["codeDigest"] != digest


@pytest.mark.parametrize("crash_after", range(1, 16))
async def test_an_operator_that_dies_leaves_one_script(crash_after: int) -> None:
    world = World()
    code(world, train_py="1")
    world.writes.crash_after = crash_after
    await world.until_running(estimator=None, script=SCRIPT)
    config, digest = world.object("ConfigMap", "churn-1-run")["data"], world.run["codeDigest"]
    assert digest == pinned_files({"data": config}).digest()  # type: ignore[union-attr]
    assert len(world.drivers) == 1


async def test_another_script_is_not_taken_for_the_runs_own() -> None:
    """Somebody removes the run's ConfigMap between two attempts, and the user's was edited meanwhile."""
    world = World()
    code(world, train_py="1")
    await world.until_running(estimator=None, script=SCRIPT)
    world.ends(None, code=137, reason="Error")
    await world.settle()
    world.kubernetes.remove(("v1", "ConfigMap", NAMESPACE, "churn-1-run"))
    code(world, train_py="2")
    world.clock.tick(60)
    await world.settle()
    assert (world.run["phase"], world.run["failure"]["reason"]) == ("Failed", "CodeChanged")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(None, "there is no ConfigMap code in namespace team-a", id="no ConfigMap"),
        pytest.param(
            {"other_py": "1"}, "has no key train.py, which spec.script.path names; its keys: other.py", id="key"
        ),
    ],
)
async def test_a_script_that_is_not_there_is_waited_for(files: dict[str, str] | None, said: str) -> None:
    world = World()
    if files is not None:
        code(world, **files)
    world.apply(estimator=None, script=SCRIPT)
    await world.settle()
    assert world.condition("Stalled") == ("True", "ScriptNotFound")
    assert world.message("Stalled").startswith("spec.script.configMapRef: ")
    assert said in world.message("Stalled")
    assert world.drivers == []
    code(world, train_py="1")
    world.clock.tick(30)
    await world.settle()
    assert len(world.drivers) == 1
    assert world.condition("Stalled") is None


async def test_a_script_that_is_never_there_fails_the_run_in_the_end() -> None:
    world = World()
    world.apply(estimator=None, script=SCRIPT)
    await world.settle()
    world.clock.tick(601)
    await world.settle()
    assert world.run["failure"]["reason"] == "ScriptNotFound"
    assert world.run["failure"]["field"] == "spec.script.configMapRef"


async def test_an_archive_as_a_key_may_hold_the_path() -> None:
    world = World()
    world.kubernetes.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "code", "namespace": NAMESPACE},
            "binaryData": {"code.tar.gz": base64.b64encode(b"packed").decode()},
        }
    )
    world.apply(estimator=None, script=SCRIPT | {"path": "pkg/train.py"})
    await world.settle()
    assert world.object("ConfigMap", "churn-1-run")["binaryData"]["script.code.tar.gz"] == "cGFja2Vk"
    assert world.run["codeDigest"].startswith("sha256:")


def test_a_script_too_large_for_a_config_map() -> None:
    small = {"data": {"run.json": "{}"}}
    assert with_script(small, None) == small
    for files in (
        ScriptFiles({"a.py": "x" * (1 << 20)}, {}),
        ScriptFiles({}, {"a.zip": base64.b64encode(bytes(1 << 20)).decode()}),
        ScriptFiles({"x" * 250: ""}, {}),
    ):
        with pytest.raises(ScriptTooLarge, match=r"spec\.script\.configMapRef"):
            with_script(small, files)


async def test_what_is_too_large_fails_the_run() -> None:
    world = World()
    code(world, train_py="x" * (1 << 20))
    world.apply(estimator=None, script=SCRIPT)
    await world.settle()
    failure = world.run["failure"]
    assert (failure["class"], failure["reason"]) == ("Submission", "ScriptTooLarge")
    assert "spec.script.uri" in failure["message"]


def test_the_digest_is_that_of_the_trainer() -> None:
    """As in tests/unit/trainer: the same files, the same digest."""
    files = files_of({"data": {"b.py": "2", "a.py": "1"}, "binaryData": {"c.zip": base64.b64encode(b"3").decode()}})
    assert files.digest() == "sha256:8b117a8cefb993654feab54062320fd938600dad6456d0144696d66c105c1366"


def driver_env(*env: dict[str, Any]) -> list[dict[str, Any]]:
    spec = spec_of(script={"uri": "s3a://code/a.zip", "path": "a.py", "env": list(env)})
    target = storage_target(spec.storage, PLATFORM)
    found: list[dict[str, Any]] = driver_pod(RUN, spec, target, PLATFORM, "r")["spec"]["containers"][0]["env"]
    return found


def test_env_of_a_script() -> None:
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}}
    env = driver_env({"name": "ROUNDS", "value": "3"}, secret)
    assert env[-2:] == [{"name": "ROUNDS", "value": "3"}, secret]


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_RUN_ID", "LAKELOOP_ANY", "PATH", "PYTHONPATH"])
def test_env_that_is_lakeloops_own(name: str) -> None:
    with pytest.raises(InvalidConf, match=rf"spec\.script\.env\[1\]\.name: {name} is set by Lakeloop"):
        driver_env(
            {"name": "A", "value": "1"}, {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        )


@pytest.mark.parametrize("line", ["lightgbm==4.6.0", "a_b[x, y] == 1.0.post1 ; python_version > '3'", "a===1!2+local"])
def test_pinned_requirements(line: str) -> None:
    assert requirements([line]) == [line]


@pytest.mark.parametrize(
    "line", ["lightgbm", "a>=1", "a==1,>0", "a==1.*", "-r x", "--index-url=x", "a @ https://b/c.whl"]
)
def test_requirements_that_name_no_version(line: str) -> None:
    with pytest.raises(InvalidConf, match=r"spec\.dependencies\.pip\[1\]: write a package and its version"):
        requirements(["ok==1", line])


async def test_what_is_wrong_with_packages_and_addresses_fails_before_a_driver_starts() -> None:
    for parts, field in (
        ({"dependencies": {"pip": ["lightgbm"]}}, "spec.dependencies.pip[0]"),
        ({"estimator": None, "project": {"uri": "https://me:token@forge.example/x.git"}}, "spec.project.uri"),
    ):
        world = World()
        world.apply(**parts)
        await world.settle()
        assert (world.run["failure"]["reason"], world.run["failure"]["field"]) == ("InvalidConf", field)
        assert world.drivers == []


def test_a_projects_parameters() -> None:
    spec = spec_of(project={"uri": "s3a://code/p", "parameters": {"C": {"float": "1.0"}, "rounds": 3}})
    target = storage_target(spec.storage, PLATFORM)
    pinned = [RunInput(name="a", uri="s3a://lake/a", version=1)]
    document = run_document(RUN, "Manual", spec, pinned, target, PLATFORM, "r")
    expected = {"uri": "s3a://code/p", "version": None, "entryPoint": "main", "parameters": {"C": 1.0, "rounds": 3}}
    assert document["project"] == expected
    assert isinstance(document["project"]["parameters"]["C"], float)
