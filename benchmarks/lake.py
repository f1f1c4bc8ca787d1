"""The cluster's bucket `lake`, as a writer of Delta tables that is no Lakeloop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import arro3.core as arrow
from cluster import PLATFORM, Cluster
from deltalake import write_deltalake

from lakeloop.cli.demo import address


@dataclass(frozen=True)
class Lake:
    """With the demo's key."""

    keys: Mapping[str, str]
    endpoint: str

    @classmethod
    def of(cls, cluster: Cluster) -> "Lake":
        """The cluster's."""
        return cls(cluster.keys(), address(cluster.kubectl, "minio", PLATFORM))

    def write(self, table: str, mode: Literal["append", "overwrite"]) -> None:
        """One commit of five rows to `s3://lake/<table>`."""
        options = {**self.keys, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        columns = {"feature": [1, 2, 3, 4, 5], "target": [0, 1, 0, 1, 0]}
        arrays: dict[str, Any] = {name: arrow.Array(each, arrow.DataType.int64()) for name, each in columns.items()}
        write_deltalake(f"s3://lake/{table}", arrow.Table.from_pydict(arrays), mode=mode, storage_options=options)
