"""What a TrainingJob learns from: `spec.inputs` and `spec.dataset`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel, default_text, list_map, rule, rules
from lakeloop.api.v1alpha1.common import ColumnName, DnsLabel, S3Uri, TableName, Tags, Time, ViewName


class Ingest(ApiModel):
    """Raw files that a run loads into the table, in one idempotent commit, before it trains."""

    model_config = rules(
        rule(
            "has(self.mode) && self.mode == 'Merge' ? has(self.keys) && size(self.keys) > 0 : !has(self.keys)",
            "mode Merge needs keys, the columns that tell rows apart; no other mode takes them",
            field=".keys",
        ),
    )

    from_: S3Uri = Field(
        alias="from", description="The files: `s3a://bucket/prefix/*.json`. `*`, `?` and `[…]` match within a folder."
    )
    format: Literal["json", "csv", "parquet"] = Field(description="What the files are.")
    mode: Literal["Append", "Overwrite", "Merge"] | None = Field(
        default=None, description="How the rows go into the table."
    )
    keys: Annotated[tuple[ColumnName, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Columns by which Merge matches rows."
    )
    files: Literal["New", "All"] | None = Field(
        default=None,
        description="`New`: those that this job has not ingested yet. `All`: every one that is there.",
        json_schema_extra=default_text("`New`; `All` where mode is `Overwrite`"),
    )
    options: Tags | None = Field(
        default=None,
        description="Options of Spark's reader for the format, such as `header` or `multiLine`.",
        json_schema_extra=default_text(
            "a malformed record fails the run (`mode: FAILFAST`); CSV has a header, the same in each file, inferred"
            " types, and quotes doubled inside of quotes"
        ),
    )


class Input(ApiModel):
    """A Delta table, pinned to one version per run."""

    model_config = rules(
        rule(
            "has(self.uri) != has(self.table)",
            "write exactly one of uri (s3a://bucket/path) and table (db.name, below the warehouse)",
        ),
        rule("!(has(self.version) && has(self.timestamp))", "write version or timestamp, not both"),
        rule(
            "!has(self.ingest) || !(has(self.version) || has(self.timestamp))",
            "ingest makes a new version of the table: take version and timestamp away, or ingest",
        ),
    )

    name: ViewName = Field(description="Name of the SQL view that the run sees the table as.")
    uri: S3Uri | None = Field(default=None, description="Where the table lies.")
    table: TableName | None = Field(
        default=None, description="`db.name`, which lies at `<warehouse>/db.db/name`. There is no metastore."
    )
    version: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None,
        description="Version of the table.",
        json_schema_extra=default_text("the latest, resolved once per run"),
    )
    timestamp: Time | None = Field(default=None, description="Moment (RFC 3339) whose version of the table is read.")
    ingest: Ingest | None = Field(
        default=None, description="Raw files to load first.", json_schema_extra=default_text("nothing is loaded")
    )


class Split(ApiModel):
    """Which rows are kept away from training, to test on."""

    model_config = rules(
        rule(
            "has(self.by) && self.by == 'Time' ? has(self.column) : !has(self.column)",
            "by: Time needs column, the column with the time; by: Random takes none",
            field=".column",
        ),
        rule(
            "!(has(self.by) && self.by == 'Time' && (has(self.keys) || has(self.seed)))",
            "keys and seed belong to by: Random; take them away or split by Random",
        ),
    )

    by: Literal["Random", "Time"] | None = Field(
        default=None,
        description=(
            "`Random`: by a hash of the seed and the keys, so that a row stays on its side as the table grows."
            " `Time`: the newest rows by `column` are the test rows."
        ),
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Share of the rows to test on. 0 tests on none."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(default=None, description="Seed of the hash.")
    keys: Annotated[tuple[ColumnName, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None = Field(
        default=None,
        description="Columns whose values decide a row's side: rows of one customer stay together, say.",
        json_schema_extra=default_text("the whole row"),
    )
    column: ColumnName | None = Field(default=None, description="Column to split by, with `by: Time`.")


class Expectation(ApiModel):
    """A statement on every row, checked before training."""

    name: DnsLabel = Field(description="Name of the expectation; shown where it is violated.")
    expression: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="Spark SQL expression that is true of a good row."
    )
    on_violation: Literal["Fail", "Warn"] | None = Field(
        default=None, description="`Fail`: the run fails with class Data. `Warn`: it goes on and says so."
    )


class Dataset(ApiModel):
    """The rows and columns to learn from."""

    model_config = rules(
        rule(
            "!(has(self.features) && has(self.target) && self.target in self.features)",
            "the target cannot be a feature: take it out of features, or name another target",
            field=".features",
        ),
    )

    query: Annotated[str, StringConstraints(min_length=1, max_length=16384)] | None = Field(
        default=None,
        description="Spark SQL over the inputs, each a view by its name.",
        json_schema_extra=default_text("all columns of the one input; required with more than one"),
    )
    features: (
        Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=2048, json_schema_extra=ATOMIC)] | None
    ) = Field(
        default=None,
        description="Columns to learn from.",
        json_schema_extra=default_text("every column but the target and the split's keys and column"),
    )
    target: ColumnName | None = Field(default=None, description="Column to predict. Required with `estimator`.")
    split: Split | None = Field(default=None, description="Which rows to test on.")
    expectations: (
        Annotated[tuple[Expectation, ...], Field(max_length=32, json_schema_extra=list_map("name"))] | None
    ) = Field(default=None, description="What must be true of the rows.")
