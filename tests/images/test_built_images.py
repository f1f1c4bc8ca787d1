"""The built images, in a root that nothing can be written to, as uid 10001: `pytest -m images tests/images`."""

import json
import re
import shlex
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.images import build, definitions

pytestmark = pytest.mark.images
ROOT = Path(__file__).parents[2]
NAMES = [one.name for one in definitions.present(ROOT)]
LIMITS_MB = {"operator": 400, "model-server": 600, "mlflow": 500, "minio": 220, "postgres": 230, "trainer": 1850}


def run(*command: str) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


Roots = Callable[[str], Path]


@pytest.fixture(scope="session")
def mounted() -> Iterator[Roots]:
    """`mounted("trainer")`: the image's root file system, as it is built from the files of this checkout."""
    containers: dict[str, str] = {}

    def root(name: str) -> Path:
        if name not in containers:
            containers[name] = run("buildah", "from", "--pull-never", build.references(ROOT)[name]).strip()
        return Path(run("buildah", "mount", containers[name]).strip())

    yield root
    for container in containers.values():
        run("buildah", "rm", container)


def config(name: str) -> dict[str, object]:
    """The OCI config of an image."""
    inspected = json.loads(run("buildah", "inspect", "--type", "image", build.references(ROOT)[name]))
    found: dict[str, object] = inspected["OCIv1"]
    return found


def inside(root: Path, script: str, writable: str = "/tmp", **environment: str) -> str:
    """What a shell script prints in an image: uid 10001, a read-only root, an empty ``writable`` folder, no network."""
    place = shlex.quote(str(root))
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    setup = f"""
        set -eu
        mount --bind {place} {place}
        mount --bind /dev {place}/dev
        mount -t tmpfs -o mode=1777 none {place}/dev/shm
        mkdir -p {place}{writable}
        mount -t tmpfs -o mode=1777 none {place}/tmp
        [ {writable} = /tmp ] || mount -t tmpfs -o mode=0777 none {place}{writable}
        mount -o remount,ro,bind {place}
        mount -t proc none {place}/proc
        ip link set lo up
        exec chroot --userspec=10001:10001 {place} \
          /usr/bin/env -i HOME=/tmp {variables} /bin/sh -euc {shlex.quote(script)}
    """
    return run("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", setup)


def environment_of(name: str) -> dict[str, str]:
    """The variables that the image sets."""
    runtime = config(name)["config"]
    assert isinstance(runtime, dict)
    return dict(entry.split("=", 1) for entry in runtime["Env"])


@pytest.mark.parametrize("name", NAMES)
def test_user_labels_and_entry_point(mounted: Roots, name: str) -> None:
    runtime = config(name)["config"]
    assert isinstance(runtime, dict)
    assert runtime["User"] == "10001:10001"
    assert runtime["Labels"]["org.opencontainers.image.title"] == f"lakeloop-{name}"
    root = mounted(name)
    entry = root / runtime["Entrypoint"][0].lstrip("/")
    assert entry.is_file()
    assert entry.stat().st_mode & 0o111
    assert re.search(r"^lakeloop:x:10001:10001:", (root / "etc/passwd").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_root_is_not_writable_and_tmp_is(mounted: Roots, name: str) -> None:
    root = mounted(name)
    assert inside(root, "id -u; touch /tmp/x; touch /x 2>/dev/null || echo refused").split() == ["10001", "refused"]


@pytest.mark.parametrize("name", NAMES)
def test_size(name: str) -> None:
    size = build.unpacked_bytes(build.references(ROOT)[name])
    assert size < LIMITS_MB[name] * 1e6


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_this_machine_is_left(mounted: Roots, name: str) -> None:
    """Neither in history and config, nor as files: the CA bundle, proxies, mirrors, mount points of secrets."""
    told = json.dumps(config(name))
    assert not re.search(r"(https?_proxy|pip_index_url|pip_cert|ssl_cert_file)=", told, re.IGNORECASE)
    root = mounted(name)
    assert [path for path in (root / "run/secrets").rglob("*") if path.is_file()] == []
    left = [path for folder in ("root", "tmp", "var/lib/apt/lists") for path in (root / folder).rglob("*")]
    assert {path.name for path in left if path.is_file()} <= {".bashrc", ".profile", "lock"}
    assert not (root / "etc/pip.conf").exists()
    debians = {"01autoremove", "02autoremove-postgresql", "70debconf"}
    assert {path.name for path in (root / "etc/apt/apt.conf.d").iterdir()} <= debians
    sources = [path for path in (root / "etc/apt").rglob("*") if path.suffix in (".list", ".sources")]
    assert [path.read_text() for path in sources] == ["deb http://deb.debian.org/debian bookworm main\n"]
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    debian = {path.read_text().strip() for path in (root / "usr/share/ca-certificates").rglob("*.crt")}
    found = set(re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", bundle, re.DOTALL))
    assert found == debian


# By libraries that prune.py has stripped, with all that pandas wants of Arrow still there.
PARQUET = """
import io, httptools, uvloop, yaml, pandas, pyarrow.dataset
file = io.BytesIO()
pandas.DataFrame({"a": [1], "b": ["x"], "c": [[1]]}).to_parquet(file)
frame = pandas.read_parquet(file)
print(frame.b[0], frame.a.sum(), "whole")
"""


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("mlflow", "mlflow --version", "mlflow, version 3.17.2"),
        ("mlflow", "python -c 'import boto3, psycopg2, cryptography; print(boto3.client.__name__)'", "client"),
        ("mlflow", "python -c 'import mlflow.server.fastapi_app as a; print(a.app.title)'", ""),
        ("minio", "/usr/bin/minio --version", "commit-id=7aac2a2c5b7c"),
        ("postgres", "postgres --version", "postgres (PostgreSQL) 15."),
        ("operator", "python -c 'import lakeloop.main; print(lakeloop.__name__)'", "lakeloop"),
        ("operator", "command -v lakeloop-operator", "/opt/venv/bin/lakeloop-operator"),
        ("model-server", "python -c 'import lakeloop_server.main as m; print(m.__name__)'", "lakeloop_server.main"),
        ("model-server", f"python -c {shlex.quote(PARQUET)}", "x 1 whole"),
        ("model-server", "command -v strip || echo none", "none"),
        ("model-server", "command -v lakeloop-server", "/opt/venv/bin/lakeloop-server"),
        ("trainer", "python -c 'import lakeloop_trainer.main as m; print(m.__name__)'", "lakeloop_trainer.main"),
        ("trainer", "command -v lakeloop-driver", "/opt/venv/bin/lakeloop-driver"),
    ],
)
def test_programs_answer(mounted: Roots, name: str, script: str, expected: str) -> None:
    root = mounted(name)
    assert expected in inside(root, script, **environment_of(name))


POSTGRES = """
/opt/entrypoint.sh > /tmp/log 2>&1 & server=$!
ready() { pg_isready --quiet --host=127.0.0.1 --username=mlflow --dbname=mlflow; }
for i in $(seq 300); do ready && break; kill -0 $server || { cat /tmp/log; exit 1; }; sleep 0.1; done
PGPASSWORD=s3cret psql -h 127.0.0.1 -U mlflow -d mlflow -Atc "SELECT current_user, current_setting('jit'), 1 + 1"
PGPASSWORD=wrong psql -h 127.0.0.1 -U mlflow -d mlflow -Atc 'SELECT 1' 2>&1 | grep -o 'password authentication failed'
psql -h /tmp -U mlflow -d mlflow -w -Atc 'SELECT 1' 2>&1 | grep -o 'no password supplied'
PGPASSWORD=s3cret psql -h 127.0.0.1 -U mlflow -d mlflow -Atqc 'CREATE TABLE t AS SELECT 42 AS x'
pg_ctl stop --mode=fast --silent
/opt/entrypoint.sh > /tmp/log 2>&1 &
for i in $(seq 300); do ready && break; sleep 0.1; done
PGPASSWORD=s3cret psql -h 127.0.0.1 -U mlflow -d mlflow -Atc 'SELECT x FROM t'
pg_ctl stop --mode=fast --silent
"""


def test_postgres_makes_its_database_once_on_a_read_only_root(mounted: Roots) -> None:
    variables = environment_of("postgres")
    variables |= {"POSTGRES_USER": "mlflow", "POSTGRES_DB": "mlflow", "POSTGRES_PASSWORD": "s3cret"}
    root = mounted("postgres")
    said = inside(root, POSTGRES, writable="/var/lib/postgresql", **variables)
    assert said.split("\n")[:4] == [
        "mlflow|on|2",
        "password authentication failed",
        "no password supplied",
        "42",
    ]


MLFLOW = """
mlflow server --backend-store-uri sqlite:////tmp/m.db --default-artifact-root s3://mlflow/ --no-serve-artifacts \
  --host 127.0.0.1 --port 5000 --workers 1 > /tmp/log 2>&1 &
python - <<'X'
import time, urllib.request
for _ in range(300):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:5000/health", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.2)
else:
    raise SystemExit(open("/tmp/log").read())
page = urllib.request.urlopen("http://127.0.0.1:5000/", timeout=30).read().decode()
print("page" if "<title>MLflow</title>" in page else page)
from mlflow.client import MlflowClient
client = MlflowClient("http://127.0.0.1:5000")
run = client.create_run(client.create_experiment("x"))
client.log_metric(run.info.run_id, "m", 1)
client.create_registered_model("a")
version = client.create_model_version("a", "s3://mlflow/x", run.info.run_id)
client.set_registered_model_alias("a", "champion", version.version)
print(client.get_model_version_by_alias("a", "champion").version, len(client.search_runs(["1"])))
X
"""


def test_mlflow_serves_without_the_packages_left_out(mounted: Roots) -> None:
    root = mounted("mlflow")
    said = inside(root, MLFLOW, **environment_of("mlflow"))
    packages = {path.name for path in (root / "opt/venv/lib/python3.11/site-packages").iterdir()}
    assert said.splitlines()[0] == "OK"
    assert "page" in said.splitlines()
    assert "1 1" in said.splitlines()
    assert not packages & {"pyarrow", "scipy", "sklearn", "matplotlib"}


def without_version(jar: str) -> str:
    """``netty-buffer`` of ``netty-buffer-4.2.7.Final.jar``; what comes after the version (a platform) stays."""
    return re.sub(r"-\d[\w.]*?(?=-linux|\.jar$|$)", "", jar.removesuffix(".jar"))


# What the image adds, and what broke when it was there twice.
OURS = ("software/amazon/", "io/delta/", "org/apache/hadoop/fs/s3a/", "io/netty/")


def test_no_jar_is_there_twice(mounted: Roots) -> None:
    root = mounted("trainer")
    jars = sorted(path.name for path in (root / "opt/venv/lib/python3.11/site-packages/pyspark/jars").glob("*.jar"))
    netty = {re.sub(r"^.*?-(4\.\d+\.\d+).*$", r"\1", jar) for jar in jars if re.match(r"netty-(?!tcnative|nio)", jar)}
    slf4j = [jar for jar in jars if jar.startswith("slf4j-api")]
    jackson = [jar for jar in jars if jar.startswith("jackson-databind")]
    classes: dict[str, str] = {}
    clashes = set()
    for jar in jars:
        with zipfile.ZipFile(root / "opt/venv/lib/python3.11/site-packages/pyspark/jars" / jar) as archive:
            members = [name for name in archive.namelist() if name.startswith(OURS) and name.endswith(".class")]
        clashes |= {(classes[name], jar) for name in members if classes.setdefault(name, jar) != jar}
    names = [without_version(jar) for jar in jars]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert len(netty) == 1
    assert len(slf4j) == 1
    assert len(jackson) == 1
    assert {pair for pair in clashes if "arrow-memory-netty" not in pair[0]} == set()
    assert not [jar for jar in jars if jar.startswith("bundle-")]
    assert not [jar for jar in jars if re.search(r"-(osx|windows|linux-(aarch_64|riscv64))", jar)]


def test_archive_of_classes_fits_the_class_path(mounted: Roots) -> None:
    """Nearly all that a JVM loads comes from it; with -Xshare:on, one that does not fit the class path is an error."""
    script = """
    archive=/opt/lakeloop/spark.jsa
    class_path=$(python -c '
import os, pathlib
print(":".join(sorted(map(str, pathlib.Path(os.environ["SPARK_HOME"], "jars").glob("*.jar")))))')
    java -Xshare:on -XX:SharedArchiveFile=$archive -Xlog:class+load:file=/tmp/loaded -XX:+UseSerialGC \
      -cp "$class_path:/opt/spark/conf" org.apache.spark.deploy.SparkSubmit --version > /tmp/out 2>&1 || true
    grep -c 'shared objects file' /tmp/loaded
    wc -l < /tmp/loaded
    """
    root = mounted("trainer")
    shared, loaded = map(int, inside(root, script, **environment_of("trainer")).split())
    assert shared > loaded * 0.8
