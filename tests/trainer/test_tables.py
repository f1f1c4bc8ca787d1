"""Ingestion, pinned reads and the split on real Delta tables, in one session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import dataset, ingest
from lakeloop_trainer.failures import RunFailure, vacuumed
from lakeloop_trainer.query import open_query
from lakeloop_trainer.run_spec import Dataset, Ingest, Input, Split
from lakeloop_trainer.storage import FileStore, version_of_transaction

pytestmark = pytest.mark.spark
STORE = FileStore()
PLENTY = 1 << 30


def table_input(path: Path, version: int | None = None, load: Ingest | None = None) -> Input:
    return Input(0, "points", str(path), version, load)


def append(manifest: str | None, base: int | None, **options: Any) -> Ingest:
    return Ingest(
        options.get("format", "json"), options.get("mode", "Append"), options.get("options", {}), base, manifest, None
    )


def json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(spark: Any, item: Input, uid: str) -> int:
    """What a driver does for one input: look, and load if there is still something to load."""
    prepared = ingest.prepare(item, uid, STORE)
    if prepared.version is not None:
        return prepared.version
    assert prepared.manifest is not None
    return ingest.load(spark, item, prepared.manifest, uid, "team-a/churn", STORE)


def rows_of(spark: Any, path: Path, version: int) -> int:
    return int(spark.read.format("delta").option("versionAsOf", version).load(str(path)).count())


def test_each_of_fourteen_commits_is_read_as_it_was(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    """More than ten commits: a checkpoint lies between, which is where Delta and Spark of different patches part."""
    table = tmp_path / "points"
    for number in range(14):
        raw = json_lines(tmp_path / f"{number}.json", [{"feature": number, "target": number % 2}])
        base = number - 1 if number else None
        manifest = write_manifest(f"run-{number}", [raw])
        assert load(spark, table_input(table, load=append(manifest, base)), f"run-{number}") == number
    assert list((table / "_delta_log").glob("*.checkpoint*.parquet"))
    for version in (0, 3, 10, 13):
        item = table_input(table, version)
        dataset.register_views(spark, [item], {"points": version})
        wanted = Dataset(None, ("feature",), "target", Split(0.0))
        rows = dataset.read(spark, wanted, [item], PLENTY)
        assert sorted(rows.train_features["feature"]) == list(range(version + 1))
        assert len(rows.test_features) == 0


def test_a_retry_after_the_commit_loads_nothing_twice(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    table = tmp_path / "points"
    raw = json_lines(tmp_path / "a.json", [{"feature": 1, "target": 0}, {"feature": 2, "target": 1}])
    item = table_input(table, load=append(write_manifest("run-1", [raw]), None))
    assert load(spark, item, "run-1") == 0
    # another writer goes on before the operator has seen the version
    spark.sql("SELECT 9L AS feature, 1L AS target").write.format("delta").mode("append").save(str(table))
    raw.write_text("replaced since\n")  # too late to matter: the commit is made
    assert load(spark, item, "run-1") == 0
    assert rows_of(spark, table, 0) == 2
    # a driver that was slow to die commits the same transaction once more: Delta's own check refuses it
    old = json_lines(tmp_path / "a.json", [{"feature": 1, "target": 0}, {"feature": 2, "target": 1}])
    manifest = ingest.parse_manifest(Path(write_manifest("run-1", [old])).read_bytes(), "run-1", "f")
    assert ingest.load(spark, item, manifest, "run-1", "team-a/churn", STORE) == 0
    assert rows_of(spark, table, 1) == 3
    assert version_of_transaction(STORE, str(table), "run-2", None) is None


def test_the_commit_says_whose_it_is(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    table = tmp_path / "points"
    raw = json_lines(tmp_path / "a.json", [{"feature": 1}])
    load(spark, table_input(table, load=append(write_manifest("run-1", [raw]), None)), "run-1")
    actions = [json.loads(line) for line in (table / "_delta_log/00000000000000000000.json").read_text().splitlines()]
    assert [a["txn"]["appId"] for a in actions if "txn" in a] == ["run-1"]
    info = next(a["commitInfo"] for a in actions if "commitInfo" in a)
    assert json.loads(info["userMetadata"]) == {"lakeloop": {"runUid": "run-1", "job": "team-a/churn"}}
    assert len([a for a in actions if "add" in a]) == 1
    assert next(table.glob("*.parquet")).name.endswith(".snappy.parquet")


def test_overwrite_replaces_rows_and_schema(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    table = tmp_path / "points"
    first = json_lines(tmp_path / "a.json", [{"feature": 1, "target": 0}])
    load(spark, table_input(table, load=append(write_manifest("run-1", [first]), None)), "run-1")
    second = tmp_path / "b.csv"
    second.write_text("size;goal\n1.5;yes\n2.5;no\n")
    item = table_input(
        table, load=append(write_manifest("run-2", [second]), 0, format="csv", mode="Overwrite", options={"sep": ";"})
    )
    assert load(spark, item, "run-2") == 1
    assert spark.read.format("delta").load(str(table)).dtypes == [("size", "double"), ("goal", "string")]
    assert rows_of(spark, table, 0) == 1


def test_append_widens_numbers_and_refuses_the_rest(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    table = tmp_path / "points"
    spark.sql("SELECT 1.5D AS feature, 1 AS target").write.format("delta").save(str(table))
    whole = json_lines(tmp_path / "a.json", [{"feature": 2, "target": 0}])
    assert load(spark, table_input(table, load=append(write_manifest("run-1", [whole]), 0)), "run-1") == 1
    assert rows_of(spark, table, 1) == 2
    wrong = {
        "text": ({"feature": "x", "target": 0}, "column feature is string in the files and double in the table"),
        "extra": ({"feature": 1, "target": 0, "more": 1}, "column more is not in the table"),
    }
    for name, (row, says) in wrong.items():
        raw = json_lines(tmp_path / f"{name}.json", [row])
        with pytest.raises(RunFailure, match=says) as caught:
            load(spark, table_input(table, load=append(write_manifest(f"run-{name}", [raw]), 1)), f"run-{name}")
        assert (caught.value.reason, caught.value.field) == ("SchemaMismatch", "spec.inputs[0].ingest"), name
    assert not (table / "_delta_log/00000000000000000002.json").exists()


# name: files, format, options, what becomes of them: rows, or what the failure says
RAW_FILES: dict[str, tuple[dict[str, str], str, dict[str, str], list[tuple[Any, ...]] | str]] = {
    "a broken record": ({"a.json": '{"x": 1}\n{"x": 2\n{"x": 3}\n'}, "json", {}, "malformed record"),
    "the same, left out": ({"a.json": '{"x": 1}\n{"x": 2\n'}, "json", {"Mode": "DROPMALFORMED"}, [(1,)]),
    "an array over several lines": ({"a.json": '[\n{"x": 1},\n{"x": 3}\n]'}, "json", {}, 'multiLine: "true"'),
    "the same, as such": ({"a.json": '[\n{"x": 1},\n{"x": 3}\n]'}, "json", {"multiline": "true"}, [(1,), (3,)]),
    "a short line": ({"a.csv": "x,y\n1,2\n3\n"}, "csv", {}, "a.csv"),
    "a long line": ({"a.csv": "x,y\n1,2\n3,4,5\n"}, "csv", {}, "malformed record in"),
    "columns in another order": (
        {"a.csv": "x,y\n1,2\n", "b.csv": "y,x\n4,3\n"}, "csv", {}, "b.csv.*CSV header does not conform"),
    "a column more": ({"a.csv": "x,y\n1,2\n", "b.csv": "x,y,z\n3,4,5\n"}, "csv", {}, "Number of column in CSV header"),
    "quotes in quotes": ({"a.csv": 'x,y\n1,"a ""b"", c\\"\n'}, "csv", {}, [(1, 'a "b", c\\')]),
    "no header": ({"a.csv": "1,2\n"}, "csv", {"Header": "false"}, [(1, 2)]),
    "no parquet": ({"a.parquet": "nonsense"}, "parquet", {}, "a.parquet is not a Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW_FILES)
def test_raw_files_are_loaded_as_they_are_or_not_at_all(
    spark: Any, tmp_path: Path, write_manifest: Any, name: str
) -> None:
    files, file_format, options, expected = RAW_FILES[name]
    raw = [tmp_path / file for file in files]
    for file in raw:
        file.write_text(files[file.name])
    wanted = append(write_manifest("run-1", raw), None, format=file_format, options=options)
    item = table_input(tmp_path / "points", load=wanted)
    if isinstance(expected, str):
        with pytest.raises(RunFailure, match=expected) as caught:
            load(spark, item, "run-1")
        assert (caught.value.reason, caught.value.field) == ("IngestFailed", "spec.inputs[0].ingest")
        assert not list((tmp_path / "points").glob("_delta_log/*.json"))
    else:
        assert load(spark, item, "run-1") == 0
        found = spark.read.format("delta").load(str(tmp_path / "points")).collect()
        assert sorted(tuple(row) for row in found) == expected


def test_a_changed_file_or_none_at_all(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    raw = json_lines(tmp_path / "a [1].json", [{"feature": 1}])  # a name that is a pattern, if one lets it
    manifest = write_manifest("run-1", [raw])
    item = table_input(tmp_path / "points", load=append(manifest, None))
    raw.write_text('{"feature": 2}\n')
    with pytest.raises(RunFailure, match="was replaced since") as caught:
        load(spark, item, "run-1")
    assert caught.value.reason == "SourceChanged"
    assert (
        load(spark, table_input(tmp_path / "points", load=append(write_manifest("run-2", [raw]), None)), "run-2") == 0
    )
    nothing = write_manifest("run-3", [])
    assert load(spark, table_input(tmp_path / "points", load=append(nothing, 0)), "run-3") == 0
    with pytest.raises(RunFailure) as caught:
        load(spark, table_input(tmp_path / "other", load=append(nothing, None)), "run-3")
    assert caught.value.reason == "EmptyTable"


def test_a_row_keeps_its_side_as_the_table_grows(spark: Any, tmp_path: Path) -> None:
    """Grown, compacted, widened and read by another query: the held-out rows of before are still held out."""
    table = tmp_path / "points"
    spark.range(400).selectExpr("CAST(id AS INT) AS id", "id * 0.5D AS feature", "id % 2 AS target").repartition(
        3
    ).write.format("delta").save(str(table))
    split = Split(0.25, 3, ("id",))

    def held_out(version: int, query: str | None = None, wanted: Split = split) -> set[float]:
        item = table_input(table, version)
        dataset.register_views(spark, [item], {"points": version})
        rows = dataset.read(spark, Dataset(query, ("feature",), "target", wanted), [item], PLENTY)
        assert not set(rows.train_features["feature"]) & set(rows.test_features["feature"])
        return set(rows.test_features["feature"])

    before = held_out(0)
    assert 60 <= len(before) <= 140
    spark.range(400, 800).selectExpr("CAST(id AS INT) AS id", "id * 0.5D AS feature", "id % 2 AS target").write.format(
        "delta"
    ).mode("append").save(str(table))
    after = held_out(1)
    assert {value for value in after if value < 200} == before
    wide = "SELECT CAST(id AS BIGINT) AS id, feature, target, 1 AS more FROM points ORDER BY feature DESC"
    assert held_out(1, wide) == after
    assert held_out(1, wanted=Split(0.5, 3, ("id",))) > after
    assert held_out(1, wanted=Split(0.25, 4, ("id",))) != after
    whole_row = held_out(0, wanted=Split(0.25, 3))
    assert whole_row == {value for value in held_out(1, wanted=Split(0.25, 3)) if value < 200}


def test_only_the_columns_that_the_run_needs_are_read(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(10).selectExpr("id AS feature", "id % 2 AS target", "repeat('x', 1000) AS wide").write.format(
        "delta"
    ).save(str(table))
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})
    wanted = Dataset(None, ("feature",), "target", Split(0.2))
    selected = spark.sql(dataset.query_of(wanted, [item])).selectExpr(
        *dataset._selection({"feature": "bigint", "target": "bigint"}, ["feature", "target"], "false")
    )
    assert "wide" not in selected._jdf.queryExecution().executedPlan().toString()


def test_a_data_file_that_is_gone_is_told_by_its_table(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(10).selectExpr("id AS feature", "id % 2 AS target").write.format("delta").save(str(table))
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})
    next(table.glob("*.parquet")).unlink()
    with pytest.raises(RunFailure) as caught:
        dataset.read(spark, Dataset(None, None, "target", Split()), [item], PLENTY)
    found = vacuumed(caught.value, {"points": (str(table), 0)}, {"points": "spec.inputs[0].version"})
    assert found is not None
    assert (found.failure_class, found.reason, found.field) == ("Data", "VersionVacuumed", "spec.inputs[0].version")


def test_too_many_rows_are_refused_before_they_are_collected(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(100_000).selectExpr("id AS feature", "id % 2 AS target").write.format("delta").save(str(table))
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})
    with pytest.raises(RunFailure, match="100000 rows, about 2 MiB") as caught:
        dataset.read(spark, Dataset(None, None, "target", Split()), [item], 1 << 20)
    assert caught.value.reason == "DatasetTooLarge"


def test_the_query_sees_its_inputs_and_nothing_else(spark: Any, tmp_path: Path) -> None:
    table, other = tmp_path / "points", tmp_path / "other"
    for path in (table, other):
        spark.range(10).selectExpr("id AS feature", "id % 2 AS target").write.format("delta").save(str(path))
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})

    def asked(query: str) -> str:
        try:
            rows = dataset.read(spark, Dataset(query, None, "target", Split()), [item], PLENTY)
        except RunFailure as failure:
            return f"{failure.reason} {failure.field}"
        return f"{len(rows.train_target) + len(rows.test_target)} rows"

    spark.sql(f"CREATE TABLE left_over USING delta LOCATION '{other}'")  # a table that some catalog knows
    no_table, no_query = "TableNotFound spec.dataset.query", "QueryFailed spec.dataset.query"
    cases = {
        # other tables, by whatever way
        "SELECT * FROM delta.`OTHER`": no_table,
        "SELECT * FROM parquet.`OTHER`": no_table,
        "SELECT * FROM points WHERE feature IN (SELECT feature FROM delta.`OTHER`)": no_table,
        "SELECT * FROM elsewhere": no_table,
        "SELECT id AS feature, 1 AS target FROM table_changes_by_path('OTHER', 0)": no_query,
        "SELECT * FROM left_over": no_query,
        "SELECT feature, (SELECT max(target) FROM left_over) AS target FROM points": no_query,
        "WITH a AS (SELECT * FROM left_over) SELECT p.* FROM points p JOIN a ON a.feature = p.feature": no_query,
        # code, and the environment with its keys
        "SELECT reflect('java.lang.System', 'getenv', 'PATH') AS feature, 1 AS target": no_query,
        "SELECT java_method('java.lang.System', 'getenv', 'PATH') AS feature, 1 AS target": no_query,
        "SELECT TRANSFORM(feature, target) USING 'cat' AS (feature, target) FROM points": no_query,
        # statements
        "INSERT INTO points VALUES (1, 1)": no_query,
        "INSERT OVERWRITE DIRECTORY 'TMP/out' USING csv SELECT * FROM points": no_query,
        "VACUUM 'OTHER'": no_query,
        "RESTORE TABLE delta.`OTHER` TO VERSION AS OF 0": no_query,
        "CREATE TABLE mine USING delta LOCATION 'OTHER'": no_query,
        "SET spark.sql.runSQLOnFiles=true": no_query,
        "BEGIN SET spark.sql.runSQLOnFiles=true; SELECT * FROM delta.`OTHER`; END": no_query,
        "EXECUTE IMMEDIATE 'SELECT * FROM points'": no_query,
        "SHOW TABLES": no_query,
        "SELECT * FROM points; SELECT 1": no_query,
        "SELECT 1 AS feature) UNION (SELECT 2": no_query,
        # another version of an input, or its files, by whatever spelling
        "SELECT * FROM points VERSION AS OF 0": no_query,
        "SELECT * FROM points TIMESTAMP AS OF '2020-01-01'": no_query,
        "SELECT * FROM `points@v0`": no_table,
        "SELECT * FROM delta.`OTHER@v0`": no_table,
        "SELECT * FROM delta.`OTHER` VERSION AS OF 0": no_table,
        "TABLE delta.`OTHER`": no_table,
        "SELECT * FROM IDENTIFIER('delta.`OTHER`')": no_table,
        "SELECT * FROM json.`OTHER/_delta_log/*.json`": no_table,
        "SELECT * FROM text.`/etc/passwd`": no_table,
        "SELECT * FROM binaryFile.`/etc/passwd`": no_table,
        "SELECT * FROM STREAM points": no_query,
        "SELECT _metadata.file_path AS feature, target FROM points": "ColumnNotFound spec.dataset.query",
        # names that hide others
        "WITH points AS (SELECT * FROM delta.`OTHER`) SELECT * FROM points": no_table,
        "WITH points AS (SELECT * FROM left_over) SELECT * FROM points": no_query,
        "FROM points |> UNION ALL TABLE left_over": no_query,
        "SELECT p.* FROM points p JOIN LATERAL (SELECT * FROM left_over)": no_query,
        "SELECT * FROM points WHERE EXISTS (SELECT 1 FROM left_over)": no_query,
        "SELECT transform(array(1), x -> (SELECT max(id) FROM left_over)) AS feature, 1 AS target": no_query,
        # functions of tables
        "SELECT * FROM read_files('OTHER')": no_query,
        "SELECT * FROM python_worker_logs()": no_query,
        "SELECT from_protobuf(X'00', 'a', '/etc/passwd') AS feature, 1 AS target": no_query,
        "CACHE TABLE x AS SELECT * FROM points": no_query,
        "DESCRIBE points": no_query,
        "SELECT": no_query,
        # queries
        "TABLE points": "10 rows",
        "SELECT * FROM points -- all of them\n;\n": "10 rows",
        "FROM points |> WHERE feature > 1": "8 rows",
        "WITH a AS (SELECT * FROM points) SELECT a.* FROM a JOIN points b ON a.feature = b.feature": "10 rows",
        "SELECT p.feature, n.id % 2 AS target FROM points p, range(2) n ORDER BY 1 LIMIT 7": "7 rows",
        "SELECT feature, (SELECT max(target) FROM points) AS target FROM points": "10 rows",
        "WITH left_over AS (SELECT * FROM points) SELECT * FROM left_over": "10 rows",
        "SELECT * FROM points LATERAL VIEW explode(array(1, 2)) e AS twice": "20 rows",
    }
    found = {query: asked(query.replace("OTHER", str(other)).replace("TMP", str(tmp_path))) for query in cases}
    assert found == cases
    assert len(list((table / "_delta_log").glob("*.json"))) == 1
    assert not (tmp_path / "out").exists()
    assert spark.conf.get("spark.sql.runSQLOnFiles") == "false"
    spark.sql("DROP TABLE left_over")


def test_a_query_gets_nothing_of_the_drivers_own_process(spark: Any, tmp_path: Path) -> None:
    """Spark would put variables, the keys to the store among them, into ${env:…}; and read a file that XML names."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    xml = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><a>&x;</a>'
    text = f"SELECT '${{env:HOME}}' AS a, '${{system:user.dir}}' AS b, '${{spark.master}}' AS c, xpath_string('{xml}', 'a') AS d"
    row = open_query(spark, text, []).collect()[0]
    assert tuple(row) == ("${env:HOME}", "${system:user.dir}", "${spark.master}", "")


def test_a_key_that_cannot_be_hashed_is_named(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(3).selectExpr("id AS feature", "id % 2 AS target", "map('a', id) AS many").write.format("delta").save(
        str(table)
    )
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})
    with pytest.raises(RunFailure, match="MAP") as caught:
        dataset.read(spark, Dataset(None, None, "target", Split(0.2, 0, ("many",))), [item], PLENTY)
    assert (caught.value.reason, caught.value.field) == ("QueryFailed", "spec.dataset.split.keys")


def test_a_query_error_tells_the_line_that_the_user_wrote(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(3).selectExpr("id AS feature", "id % 2 AS target").write.format("delta").save(str(table))
    item = table_input(table, 0)
    dataset.register_views(spark, [item], {"points": 0})
    for query in ("SELECT *,\n  featur FROM points", "SELECT *,\n  FROM WHERE points"):
        with pytest.raises(RunFailure, match="line 2"):
            dataset.read(spark, Dataset(query, None, "target", Split()), [item], PLENTY)
